"""Prepare the data: read a source, split it, remove duplicates and tokenize."""
