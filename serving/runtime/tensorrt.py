"""TensorRT under onnxruntime: its libraries, its options and shapes, and a cache of engines.

TensorRT takes minutes to build the engine of a graph, for a range of shapes and one kind of card.
So engines are cached, and one range covers all batches of a model (onnxruntime so far uses only the
first range that it is given; its pull request 31624 is to change that). Sources: onnxruntime's
docs/execution-providers/TensorRT-ExecutionProvider.md, and the libraries its provider is linked
against.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
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
"""Libraries that onnxruntime 1.31's provider needs, each after its own dependencies."""
PACKAGE = "tensorrt-cu13<11"
USUAL = (128, 128)
"""Rows and length that an engine is tuned for: the `opt` shape of its profile."""


@cache
def lacks() -> str | None:
    """Return which library cannot be loaded, and why; None if all can."""
    for name in LIBRARIES:
        try:
            _library(name)
        except OSError as problem:
            return f"{name} cannot be loaded ({problem}); install {PACKAGE}"
    return None


def _library(name: str) -> ctypes.CDLL:
    """Load a library from the package that ships it, else from the system's search path.

    onnxruntime then finds it by name. Raises OSError if it cannot be loaded.
    """
    package = importlib.util.find_spec("tensorrt_libs")
    folders = (package.submodule_search_locations if package else None) or []
    files = [file for folder in folders if (file := Path(folder) / name).exists()]
    return ctypes.CDLL(str(files[0]) if files else name)


def options(
    inputs: Mapping[str, int | None], shapes: Shapes, *, half: bool, folder: Path
) -> dict[str, str]:
    """Return the provider's options for a graph with these inputs, each (rows, length).

    `inputs`: the second size of each, None for the length of the rows. `half`: the graph computes
    in fp16. `folder`: for the engine and its timing cache.
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
            f"trt_profile_{bound}_shapes": ",".join(
                f"{name}:{n}x{size or m}" for name, size in inputs.items()
            )
            for bound, (n, m) in ranges.items()
        },
    }


@contextlib.contextmanager
def engine_folder(graph: Path, shapes: Shapes) -> Iterator[Path]:
    """Yield the folder of the graph's engine; if there is none yet, the body has to build it there.

    The folder is named by a hash of the model's content, because onnxruntime names an engine by the
    structure of its graph alone: a retrained model would get the engine of the previous one.
    """
    versions = f"onnxruntime{ort.__version__}-tensorrt{_version()}"
    shape = f"{shapes.max_rows}x{shapes.max_length}"
    folder = cache_folder() / f"{folder_sha256(graph.parent)[:16]}-{shape}-{versions}"
    if folder.exists():
        yield folder
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix="building-", ignore_cleanup_errors=True
    ) as aside:
        yield Path(aside)
        # Another process may have been faster; its engine is just as good.
        with contextlib.suppress(OSError):
            Path(aside).rename(folder)


def cache_folder() -> Path:
    """Return the cache of engines, kept outside model folders because those must not change.

    It is in `HEADRACE_CACHE`, else in the user's own cache.
    """
    folder = os.environ.get("HEADRACE_CACHE")
    return Path(folder or "~/.cache/headrace").expanduser() / "tensorrt"


def _version() -> int:
    """Return the version of the installed library: 101301 for 10.13.1."""
    return int(_library(LIBRARIES[0]).getInferLibVersion())
