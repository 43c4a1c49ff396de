"""Load a pretrained model, or build one and its tokenizer from scratch."""
