"""Open onnxruntime sessions on the requested device, or not at all.

onnxruntime itself falls back to the CPU, with only a line on standard error. Here the device it
gives is compared with the requested one.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
)

from ..arrays import Array
from ..errors import ModelFolderError, ProviderError
from . import tensorrt
from .batching import ANY, Shapes
from .saturation import saturates

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Provider = str | tuple[str, dict[str, str]]
"""An execution provider as onnxruntime is asked for it: its name, or its name and options."""
PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
LENGTH_STEPS: dict[Device, int] = {"cuda": 8, "tensorrt": 16}
"""Rows are padded to a multiple of this.

A step of 16 adds 10% of padding to 10,000 docstrings of 102 tokens on average and 38% to sentences
of 20; a step of 64 added 32% to the docstrings and padded the sentences to three times their
length.
"""
MAX_ROWS: dict[Device, int] = {"tensorrt": 256}
"""Rows of the maximum length for which an engine allocates memory."""
CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}
"""Provider options: the default strategy doubles each allocation."""
EXACT_PRODUCTS = "session.x64quantprecision"
"""Config entry: weights beyond 7 bits become uint8, whose products do not saturate.

It is slower, and exact.
"""
ERRORS_ONLY = 3  # onnxruntime's log severity
UNREADABLE = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented)


class Session:
    """A graph on a device, as heads run it.

    `.inputs` and `.outputs`: their names. `.providers`: best first. `.shapes`: the shapes that its
    batches must have. `.one_length`: True if all rows of a batch must have the same length.
    `.raw`: onnxruntime's own session.
    """

    def __init__(self, session: ort.InferenceSession, shapes: Shapes) -> None:
        self.inputs = [node.name for node in session.get_inputs()]
        self.outputs = [node.name for node in session.get_outputs()]
        self.providers = list(session.get_providers())
        self.shapes = shapes
        # A mask allows padding. A decoder has positions, and needs neither a mask nor one length.
        self.one_length = not {"attention_mask", "position_ids", "last"} & set(self.inputs)
        self.raw, self._on_cpu = session, self.providers[0] == PROVIDERS["cpu"]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Return the named outputs. Several threads may call this at a time."""
        if self._on_cpu:
            arrays: list[Array] = self.raw.run(outputs, feeds)
            return arrays
        return run_bound(self.raw, outputs, feeds, memory="cuda")


def run_bound(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    feeds: Mapping[str, Array],
    *,
    memory: str,
) -> list[Array]:
    """Run with the outputs kept in the device's memory (`cpu`, `cuda`) and copied once at the end.

    The inputs are copied from pageable memory: onnxruntime 1.31 has no pinned memory in Python
    ("Unsupported device type: cuda_pinned"), and a batch's ids are a few hundred kilobytes.
    """
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name in outputs:
        binding.bind_output(name, memory)
    session.run_with_iobinding(binding)
    arrays: list[Array] = binding.copy_outputs_to_cpu()
    return arrays


def open_session(
    graph: Path,
    *,
    provider: str,
    threads: int,
    max_length: int,
    half: bool = False,
    disabled_optimizers: Sequence[str] = (),
) -> Session:
    """Open a session on exactly this provider.

    Operators without a kernel there run below it: from TensorRT on CUDA, from both on the CPU.
    `max_length`: of rows, in tokens. `half`: the graph computes in fp16.
    Raises ProviderError if onnxruntime gives another provider or this one cannot run the graph,
    ModelFolderError for a graph that cannot be loaded.
    """
    device = device_of(provider)
    options = _options(threads)
    if device != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    ort.disable_telemetry_events()
    try:
        with _asked(graph, device, max_length=max_length, half=half) as providers:
            session = ort.InferenceSession(
                graph,
                options,
                providers=providers,
                disabled_optimizers=list(disabled_optimizers),
                enable_fallback=0,  # onnxruntime's own, which would use another provider
            )
    except UNREADABLE as problem:
        raise ModelFolderError(f"{graph} cannot be loaded: {problem}") from problem
    except (EPFail, RuntimeError) as problem:
        raise ProviderError(f"{provider} cannot run {graph}: {problem}") from problem
    _check_given(session, provider)
    has_mask = "attention_mask" in [node.name for node in session.get_inputs()]
    return Session(session, shapes_for(device, max_length=max_length, has_mask=has_mask))


def shapes_for(device: Device, *, max_length: int, has_mask: bool = True) -> Shapes:
    """Return the shapes of a device's batches; without a mask, rows cannot be padded."""
    if device == "cpu":
        return ANY
    step = LENGTH_STEPS[device] if has_mask else 1
    return Shapes(step, max_length, MAX_ROWS.get(device))


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.use_deterministic_compute = True
    # Memory patterns keep a plan per input shape; lengths vary, so memory would keep growing.
    options.enable_mem_pattern = False
    if saturates():
        # Only on such CPUs: on others, onnxruntime 1.31 would give up its VNNI kernels for it.
        options.add_session_config_entry(EXACT_PRODUCTS, "1")
    return options


@contextlib.contextmanager
def _asked(graph: Path, device: Device, *, max_length: int, half: bool) -> Iterator[list[Provider]]:
    """Yield the providers to open a graph with, best first, with their options."""
    cuda = (PROVIDERS["cuda"], CUDA_OPTIONS)
    if device != "tensorrt":
        yield [PROVIDERS["cpu"]] if device == "cpu" else [cuda, PROVIDERS["cpu"]]
        return
    if problem := lacks(device):
        raise ProviderError(f"device {device} is unavailable: {problem}")
    shapes = shapes_for(device, max_length=max_length)
    with tensorrt.engine_folder(graph, shapes) as folder:
        trt_options = tensorrt.options(_inputs(graph), shapes, half=half, folder=folder)
        yield [(PROVIDERS[device], trt_options), cuda, PROVIDERS["cpu"]]


def _inputs(graph: Path) -> dict[str, int | None]:
    """Return the inputs of a graph, with the second size of those for which it is fixed."""
    options = _options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph, options, providers=[PROVIDERS["cpu"]])
    sizes = ((node.name, node.shape[1:2]) for node in session.get_inputs())
    return {name: size[0] if size and isinstance(size[0], int) else None for name, size in sizes}


def _check_given(session: ort.InferenceSession, provider: str) -> None:
    """Raise ProviderError if the requested provider is missing or runs no part of the graph."""
    providers = session.get_providers()
    if providers[0] != provider:
        reason = lacks(device_of(provider)) or "onnxruntime gives no reason"
        raise ProviderError(
            f"requested {provider}, but onnxruntime selected {providers[0]}: {reason}"
        )
    if provider == PROVIDERS["cpu"]:
        return
    takers = {subgraph.ep_name for subgraph in session.get_provider_graph_assignment_info()}
    if provider not in takers:
        raise ProviderError(
            f"{provider} was assigned no graph nodes; they ran on {', '.join(sorted(takers))}"
        )


def device_of(provider: str) -> Device:
    return next(device for device, name in PROVIDERS.items() if name == provider)


def providers_for(device: Device) -> list[str]:
    """Return the providers to try for a device, best first; TensorRT only if requested.

    Raises ProviderError for a device that is unknown or not available.
    """
    if device not in ("auto", *PROVIDERS):
        raise ProviderError(
            f"unknown device {device!r}; choose one of auto, {', '.join(PROVIDERS)}"
        )
    if device == "auto":
        return [PROVIDERS["cpu"]] if cuda_lacks() else [PROVIDERS["cuda"], PROVIDERS["cpu"]]
    if problem := lacks(device):
        raise ProviderError(f"device {device} is unavailable: {problem}")
    return [PROVIDERS[device]]


def lacks(device: Device) -> str | None:
    """Return the reason why onnxruntime cannot use a device on this machine; None if it can."""
    if device == "cpu":
        return None
    if device == "tensorrt" and PROVIDERS[device] not in ort.get_available_providers():
        return "this onnxruntime is built without TensorRT; replace it with onnxruntime-gpu"
    return cuda_lacks() or (tensorrt.lacks() if device == "tensorrt" else None)


@cache
def cuda_lacks() -> str | None:
    """Return the reason why onnxruntime cannot use CUDA on this machine; None if it can."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this onnxruntime is built without CUDA; replace it with onnxruntime-gpu"
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"no NVIDIA driver found ({name} is missing)"
    n_devices = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(n_devices)) or not n_devices.value:
        return "the NVIDIA driver exposes no GPU to this process"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        ort.preload_dlls()  # finds the CUDA and cuDNN libraries in site-packages
    failures = [line for line in output.getvalue().splitlines() if line.startswith("Failed")]
    return f"{failures[0]}; install onnxruntime-gpu[cuda,cudnn]" if failures else None
