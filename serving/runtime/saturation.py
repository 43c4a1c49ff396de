"""Probe whether sums of uint8 times int8 products saturate on this CPU.

AVX2 and AVX-512 without VNNI add the products in pairs, in 16 bits: 255 * 127 twice is 64,770, but
they keep 32,767. The probe computes a product instead of checking CPU flags, so its answer also
holds for future CPUs, for an emulated one, and for other kernels in a later onnxruntime.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort

N, LARGEST, LARGEST_WEIGHT = 64, 255, 127
PRODUCT = (
    b'\x08\x07:>\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01p'
    b"Z\t\n\x01a\x12\x04\n\x02\x08\x02Z\t\n\x01b\x12\x04\n\x02\x08\x03"
    b"b\t\n\x01c\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\n"
)
"""A serialized ONNX model: `c` is the MatMulInteger of `a`, in uint8, and `b`, in int8.

The bytes are spelled out because serving does not depend on the onnx package.
"""


@cache
def saturates() -> bool:
    """True if a product of the largest values comes out wrong; takes 2 ms, once per process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    rows = np.full((1, N), LARGEST, np.uint8)
    weights = np.full((N, 1), LARGEST_WEIGHT, np.int8)
    (product,) = session.run(["c"], {"a": rows, "b": weights})
    return int(product[0, 0]) != N * LARGEST * LARGEST_WEIGHT
