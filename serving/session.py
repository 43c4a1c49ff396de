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


# --- cores ----------------------------------------------------------------------------------------


def granted_cores(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: affinity and cgroup quota, not what the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [*_quotas_v2(cgroup_root), *_quota_v1(cgroup_root / "cpu")]
    return max(1, int(min([cores, *quotas])))


def _quotas_v2(root: Path) -> list[float]:
    """cpu.max of this process's group and of those above it: `max 100000` or `150000 100000`."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::", 1)[1].strip()
    except (OSError, IndexError):
        own = "/"
    group = root / own.lstrip("/")
    quotas = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        quota, _, period = _first_line(folder / "cpu.max").partition(" ")
        if quota.isdigit():
            quotas.append(int(quota) / int(period))
    return quotas


def _quota_v1(folder: Path) -> list[float]:
    quota = _first_line(folder / "cpu.cfs_quota_us")
    period = _first_line(folder / "cpu.cfs_period_us")
    return [int(quota) / int(period)] if quota.isdigit() and period.isdigit() else []


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip().partition("\n")[0]
    except OSError:
        return ""
