"""Turn texts into tokens: validity, tokenization, windows over long texts."""
