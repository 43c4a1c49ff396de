"""What every benchmark says of the machine it ran on, and where it writes its page."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

from headrace.tasks.runtime.hardware import processor
from tests import ROOT

DATA = Path(os.environ.get("HEADRACE_DATA", ROOT.parent / "shared" / "data"))
"""Labelled sets that are not part of the project; benchmarks that need one skip without it."""

LIBRARIES = ("torch", "transformers", "onnxruntime-gpu", "tokenizers")
FLAGS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile",),
}
"""Instruction sets that decide how fast products are, by Linux's names for them."""


def describe() -> str:
    """One line: processor, its instruction sets, cores this process may use, versions."""
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{processor()} with {instruction_sets()}, {cores} cores; "
        f"Python {platform.python_version()}, {versions}"
    )


def instruction_sets() -> str:
    """Those of `FLAGS` that this CPU has, and those of x86 that it has not."""
    info = Path("/proc/cpuinfo")
    line = re.search(r"^flags\s*:(.*)$", info.read_text() if info.exists() else "", re.MULTILINE)
    if line is None:
        return f"the instruction sets of {platform.machine()}"
    found = set(line[1].split())
    there = [name for name, flags in FLAGS.items() if found.intersection(flags)]
    missing = [name for name in FLAGS if name not in there]
    return ", ".join(there) + (f" (no {', '.join(missing)})" if missing else "")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_page(name: str, title: str, command: str, body: str) -> Path:
    """docs/benchmarks/NAME.md, written aside and renamed; also printed."""
    text = f"# {title}\n\nMachine: {describe()}.\n\nCommand: `{command}`\n\n{body}\n"
    folder = ROOT / "docs" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{name}.tmp"
    aside.write_text(text, encoding="utf-8")
    aside.replace(folder / f"{name}.md")
    print(f"\n{text}")
    return folder / f"{name}.md"


def gop_per_second(kind: str, size: int = 2048) -> float:
    """What onnxruntime makes of one large product here: 1e9 operations a second, fp32 or int8."""
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    if kind == "fp32":
        op, given, made = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
        x, weights = (draw.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    else:
        op, given, made = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
        x = draw.integers(0, 255, (size, size), dtype=np.uint8)
        weights = draw.integers(-100, 100, (size, size), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", given, [size, size])],
        [helper.make_tensor_value_info("y", made, [size, size])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = ort.InferenceSession(model.SerializeToString(), options)
    seconds = []
    for _ in range(9):
        started = time.perf_counter()
        session.run(None, {"x": x})
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def fp16_flops(size: int = 8192, times: int = 20) -> float:
    """Operations a second that PyTorch makes of large fp16 products on the GPU."""
    import torch

    left, right = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        left @ right
    torch.cuda.synchronize()
    return times * 2 * size**3 / (time.perf_counter() - started)
