"""onnxruntime sessions, batches, and what the CPU can do."""
