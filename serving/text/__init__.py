"""Texts to tokens: validity, tokenization, windows over long texts."""
