"""The scorer: numpy, onnxruntime, tokenizers and pyarrow. Nothing else, and nothing of ours.

A copy of this package travels inside every registered model, so it uses relative imports only
and must not import torch, transformers, datasets, mlflow, prefect or pandas.
Read in this order: manifest.py, tokenizer.py, batching.py, session.py, tensorrt.py, heads/,
runner.py, scorer.py, golden.py; then the job: readers.py, rows.py, writers.py, output.py, plan.py,
report.py, ahead.py, chunks.py, job.py.
"""
