"""The scorer: numpy, onnxruntime, tokenizers and pyarrow. Nothing else, and nothing of ours.

A copy of this package without `jobs` and `tables` travels inside every registered model, so it uses
relative imports only and must not import torch, transformers, datasets, mlflow, prefect or pandas.
Read in this order: engine/manifest.py, text/tokenizer.py, runtime/batching.py, runtime/session.py,
heads/, engine/runner.py, engine/scorer.py, engine/golden.py; then a job: tables/readers.py,
tables/csv_json.py, tables/writers.py, jobs/storage/, jobs/plan.py, jobs/chunks.py,
jobs/pipeline.py, jobs/job.py.
"""
