"""The Transformer from scratch, as transformers-compatible models.

Imports nothing of ours. `attention.py`, `positions.py`, `layers.py` and `transformer.py` belong
here; a recipe reaches them through `model.source: scratch` and the model type they register.
"""
