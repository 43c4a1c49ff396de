"""The Transformer from scratch, as transformers-compatible models (guide: docs/transformers.md).

Imports nothing else of Headrace. Read in this order: attention.py, positions.py, layers.py,
transformer.py, models.py. Importing models.py registers the models with transformers' Auto classes.
"""
