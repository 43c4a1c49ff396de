"""The MLflow registry: register a model, move its aliases, find it again."""
