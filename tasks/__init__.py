import os

# Threads of PyTorch that wait by spinning cost several times the speed where others want the same
# cores, and onnxruntime's are such others. Read once, when the first OpenMP library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
