"""Queries about the hardware: processor, device, native precision, and whether memory ran out.

Imports torch only inside functions.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

from headrace.configs.errors import RecipeError

CGROUP = Path("/sys/fs/cgroup")
OUT_OF_MEMORY = ("DefaultCPUAllocator", "std::bad_alloc", "out of memory", "ALLOC_FAILED")
"""Out-of-memory messages of a plain RuntimeError, from libraries without a class for that error."""


class RowTooLarge(MemoryError):
    """Memory does not suffice even for a single row."""


def processor() -> str:
    """Return the processor's model name, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def oom_kills(cgroup: Path = CGROUP) -> int:
    """Count the processes of our control group that the OOM killer ended (0 if unknown).

    Linux overcommits memory, so on CPU running out shows as a SIGKILL rather than an exception. A
    rise of this count tells it from a kill by someone else.
    """
    for file in (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"):
        try:
            counts = dict(line.split() for line in file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def is_out_of_memory(problem: Exception) -> bool:
    import torch

    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(sign in str(problem) for sign in OUT_OF_MEMORY)


def device() -> Literal["cuda", "cpu"]:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision(setting: Literal["auto", "fp32", "bf16"], device: str) -> Literal["fp32", "bf16"]:
    """Choose the precision to multiply in: `auto` is bf16 if the device has it natively, else fp32.

    On a CPU that means AVX512-BF16 or AMX; emulated bf16 is slower than fp32.
    Raises RecipeError for bf16 on a GPU without native bf16.
    """
    import torch

    if device == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        if setting == "bf16" and not is_native:
            raise RecipeError(
                "train.precision: bf16 is not supported natively on "
                f"{torch.cuda.get_device_name()}; use auto or fp32"
            )
    else:
        is_native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if setting == "auto":
        return "bf16" if is_native else "fp32"
    return setting
