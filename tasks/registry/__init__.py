"""The MLflow registry: register a model, give it an alias, find it again."""
