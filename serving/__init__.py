"""The scorer: numpy, onnxruntime, tokenizers and pyarrow. Nothing else, and nothing of ours.

A copy of this package travels inside every registered model, so it uses relative imports only
and must not import torch, transformers, datasets, mlflow, prefect or pandas.
Read in this order: manifest.py, tokenizer.py, batching.py, scorer.py, heads/, then the job:
readers.py, writers.py, job.py.
"""
