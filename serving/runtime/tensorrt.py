"""What TensorRT needs beside onnxruntime: its libraries, the shapes it will meet, and a place.

It takes minutes to build its engine for a graph: for a range of shapes and one kind of card. So the
engine is kept, and there is one range for all batches of a model (onnxruntime has used no more than
the first one that it is given; its pull request 31624 is to change that). Sources: onnxruntime's
docs/execution-providers/TensorRT-ExecutionProvider.md, and what its provider is linked against.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import onnxruntime as ort

from ..digests import folder_sha256
from .batching import Shapes

WINDOWS = os.name == "nt"
LIBRARIES = (
    ("nvinfer_10.dll", "nvinfer_plugin_10.dll", "nvonnxparser_10.dll")
    if WINDOWS
    else ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
)
"""What onnxruntime 1.31's provider wants, each after those it needs itself."""
PACKAGE = "tensorrt-cu13<11"
USUAL = (128, 128)
"""Rows and length that an engine is tuned for most."""


@cache
def lacks() -> str | None:
    """Which of the libraries is not to be had, or None."""
    for name in LIBRARIES:
        try:
            _library(name)
        except OSError as problem:
            return f"{name} cannot be loaded ({problem}); install {PACKAGE}"
    return None


def _library(name: str) -> ctypes.CDLL:
    """From the package that carries them, else from where the system looks.

    onnxruntime finds it then by its name. Raises OSError.
    """
    package = importlib.util.find_spec("tensorrt_libs")
    folders = (package.submodule_search_locations if package else None) or []
    files = [file for folder in folders if (file := Path(folder) / name).exists()]
    return ctypes.CDLL(str(files[0]) if files else name)


def options(inputs: Sequence[str], shapes: Shapes, *, half: bool, folder: Path) -> dict[str, str]:
    """The provider's options for a graph with these inputs, each (rows, length).

    `half`: the graph computes in fp16. `folder`: for what is built.
    """
    rows, length = shapes.max_rows or 1, shapes.max_length
    ranges = {
        "min": (1, 1),
        "opt": (min(rows, USUAL[0]), min(length, USUAL[1])),
        "max": (rows, length),
    }
    return {
        "trt_fp16_enable": str(half),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        **{
            f"trt_profile_{which}_shapes": ",".join(f"{name}:{n}x{m}" for name in inputs)
            for which, (n, m) in ranges.items()
        },
    }


@contextlib.contextmanager
def engine_folder(graph: Path, shapes: Shapes) -> Iterator[Path]:
    """Where the graph's engine is, or is to be built by the body.

    Named for the graph's content, as onnxruntime names an engine for the form of its graph alone:
    a model that was trained again would get the engine of the one before.
    """
    made_with = f"onnxruntime{ort.__version__}-tensorrt{_version()}"
    for_shapes = f"{shapes.max_rows}x{shapes.max_length}"
    folder = cache_folder() / f"{folder_sha256(graph.parent)[:16]}-{for_shapes}-{made_with}"
    if folder.exists():
        yield folder
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix="building-", ignore_cleanup_errors=True
    ) as aside:
        yield Path(aside)
        # Another process may have been faster: then its engine is as good.
        with contextlib.suppress(OSError):
            Path(aside).rename(folder)


def cache_folder() -> Path:
    """`HEADRACE_CACHE`, else the user's own cache: a model folder must not change."""
    named = os.environ.get("HEADRACE_CACHE")
    return Path(named or "~/.cache/headrace").expanduser() / "tensorrt"


def _version() -> int:
    """Of the library that is there: 101301 for 10.13.1."""
    return int(_library(LIBRARIES[0]).getInferLibVersion())
