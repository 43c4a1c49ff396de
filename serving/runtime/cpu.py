"""Count the cores that this process may use, by its affinity mask and its control group."""

from __future__ import annotations

import os
from pathlib import Path


def granted_cores(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of cores: at least 1, and rounded down to whole cores above that."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [*_quotas_v2(cgroup_root), *_quota_v1(cgroup_root / "cpu")]
    return max(1, int(min([cores, *quotas])))


def _quotas_v2(root: Path) -> list[float]:
    """Return the quotas, in cores, of this process's group and of its ancestors.

    Each is in a file cpu.max: `max 100000` (no quota) or `150000 100000` (1.5 cores).
    """
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::", 1)[1].strip()
    except (OSError, IndexError):
        name = "/"
    group = root / name.lstrip("/")
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
