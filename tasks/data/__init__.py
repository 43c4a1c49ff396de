"""Prepare the data: read a source, split, deduplicate, tokenize."""
