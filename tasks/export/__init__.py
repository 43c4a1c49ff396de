"""Export a trained model to ONNX: build the variants, check their parity, choose one."""
