"""onnxruntime sessions: on the device that was asked for, or not at all.

onnxruntime falls back to the CPU by itself, with no more than a line on standard error. Here the
device given is compared with the device asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
)

from .errors import ModelFolderError, ProviderError

Device = Literal["auto", "cpu", "cuda"]
PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3  # onnxruntime's log severity
UNREADABLE = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented)


def open_session(
    graph: Path, *, provider: str, threads: int, disabled_optimizers: Sequence[str] = ()
) -> ort.InferenceSession:
    """A session on just that provider (and the CPU for what it has no kernel for).

    Raises ProviderError when onnxruntime gives another provider, ModelFolderError for a graph it
    cannot load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.use_deterministic_compute = True
    # Keeps one allocation plan per input shape; lengths differ, so memory would grow with them.
    options.enable_mem_pattern = False
    ort.disable_telemetry_events()
    try:
        session = ort.InferenceSession(
            graph,
            options,
            providers=list(dict.fromkeys([provider, PROVIDERS["cpu"]])),
            disabled_optimizers=list(disabled_optimizers),
            enable_fallback=0,  # onnxruntime's own, which would carry on elsewhere
        )
    except UNREADABLE as problem:
        raise ModelFolderError(f"{graph} cannot be loaded: {problem}") from problem
    given = session.get_providers()
    if given[0] != provider:
        why = cuda_lacks() or "it does not say why"
        raise ProviderError(f"asked for {provider}, onnxruntime gave {given[0]}: {why}")
    return session


def device_of(provider: str) -> Device:
    return next(device for device, name in PROVIDERS.items() if name == provider)


def providers_for(device: Device) -> list[str]:
    """Providers to try for a device, best first. Raises ProviderError for CUDA that cannot work."""
    if device not in ("auto", *PROVIDERS):
        raise ProviderError(f"no device {device!r}; there are auto, {', '.join(PROVIDERS)}")
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    lacks = cuda_lacks()
    if device == "cuda" and lacks:
        raise ProviderError(f"device cuda cannot be had: {lacks}")
    if device == "cuda":
        return [PROVIDERS["cuda"]]
    return [PROVIDERS["cpu"]] if lacks else [PROVIDERS["cuda"], PROVIDERS["cpu"]]


@cache
def cuda_lacks() -> str | None:
    """What keeps onnxruntime from CUDA on this machine, or None when nothing does."""
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this onnxruntime is built without CUDA; install onnxruntime-gpu in its place"
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return f"no NVIDIA driver here ({name} not found)"
    n_devices = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(n_devices)) or not n_devices.value:
        return "the NVIDIA driver shows no GPU to this process"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        ort.preload_dlls()  # finds the CUDA and cuDNN libraries of site-packages
    failed = [line for line in printed.getvalue().splitlines() if line.startswith("Failed")]
    return f"{failed[0]}; install onnxruntime-gpu[cuda,cudnn]" if failed else None
