"""Rewrite a model or its ONNX graph: quantize, fuse, prune, decode step by step."""
