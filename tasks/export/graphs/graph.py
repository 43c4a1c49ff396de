"""An ONNX graph in memory: made without chatter, stripped, saved."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Graph = Any
"""An onnx_ir.Model."""
INLINE_BYTES = 1_500_000_000
"""Larger weights go into a file of their own: protobuf ends at 2 GB."""


def stripped(graph: Graph) -> Graph:
    """Without the notes that tell where on this machine the model's code lies."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(graph)
    return graph


def save(graph: Graph, folder: Path, name: str = "model.onnx") -> str:
    """Write a graph's file, the weights inside it where they fit; returns its name."""
    import onnx_ir

    folder.mkdir(parents=True, exist_ok=True)
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values())
    beside = f"{name}.data" if size > INLINE_BYTES else None
    onnx_ir.save(graph, folder / name, external_data=beside)
    return name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the terminal; what goes wrong still raises.

    It prints its progress, logs that optional packages are missing and that versions are newer
    than those it was tested with, and calls a deprecated function of torch.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "torch.onnx", "onnxruntime")]
    # Signature warnings come from a logger of their own, quantization's from the root.
    loggers += [logging.getLogger("torch.onnx._internal.exporter._registration"), logging.root]
    levels = [one.level for one in loggers]
    printed = io.StringIO()
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.`", FutureWarning)
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
    log.debug("%s", printed.getvalue())
