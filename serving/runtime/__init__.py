"""onnxruntime sessions, batches, and the CPU's capabilities."""
