"""Train a model in separate processes, with checkpoints."""
