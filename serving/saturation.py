"""Whether this CPU's products of uint8 and int8 saturate.

x86 without VNNI adds them up in pairs of 16 bits: 255 * 127 twice is 64,770, and 32,767 is what it
keeps. The CPU is asked, by a product, rather than known by its name: that holds for those to come,
for an emulated one, and for what a later onnxruntime makes of them.
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
"""An ONNX file: `c`, the MatMulInteger of `a` (uint8) and `b` (int8). serving has no onnx."""


@cache
def saturates() -> bool:
    """Two milliseconds, once a process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    rows = np.full((1, N), LARGEST, np.uint8)
    weights = np.full((N, 1), LARGEST_WEIGHT, np.int8)
    (found,) = session.run(["c"], {"a": rows, "b": weights})
    return int(found[0, 0]) != N * LARGEST * LARGEST_WEIGHT
