"""Open a model folder and score texts with it."""
