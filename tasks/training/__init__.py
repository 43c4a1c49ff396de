"""Train a model in processes of its own, with checkpoints."""
