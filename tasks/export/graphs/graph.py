"""Export an ONNX graph quietly, strip it and save it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

log = logging.getLogger(__name__)

INLINE_BYTES = 1_500_000_000
"""If the weights exceed this, they go into a separate file: protobuf is limited to 2 GB."""


def stripped(graph: ir.Model) -> ir.Model:
    """Remove the metadata that tells where the model's code lies on this machine, in place."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(graph)
    return graph


def save(graph: ir.Model, folder: Path, name: str = "model.onnx") -> str:
    """Save a graph, with the weights inside its file if they fit; return the file's name."""
    import onnx_ir

    folder.mkdir(parents=True, exist_ok=True)
    initializers: Iterable[Any] = graph.graph.initializers.values()
    size = sum(value.const_value.nbytes for value in initializers)
    data_file = f"{name}.data" if size > INLINE_BYTES else None
    onnx_ir.save(graph, folder / name, external_data=data_file)
    return name


def producer_of(value: ir.Value | None) -> ir.Node | None:
    """Return the node that computes a node's input; None for an omitted one or one of the graph."""
    return value.producer() if value is not None else None


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the content of a node's input; None for an omitted one or one that is computed."""
    return value.const_value if value is not None else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's output off the terminal; errors still raise.

    The exporter prints its progress, logs that optional packages are missing and that versions are
    newer than those it was tested with, and calls a deprecated function of torch.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "torch.onnx", "onnxruntime")]
    # Signature warnings come from a separate logger, those of quantization from the root logger.
    loggers += [logging.getLogger("torch.onnx._internal.exporter._registration"), logging.root]
    levels = [logger.level for logger in loggers]
    output = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    log.debug("%s", output.getvalue())
