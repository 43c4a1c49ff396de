"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.serving.runtime.cpu import granted_cores


def granted(folder: Path, **files: str) -> int:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return granted_cores(folder)


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000\n", 8), ("300000 100000\n", 3), ("50000 100000\n", 1)]
)
def test_cores_are_those_the_cgroup_grants(tmp_path: Path, content: str, cores: int) -> None:
    assert granted(tmp_path, cpu_DOT_max=content) == cores


def test_cores_of_the_older_cgroup(tmp_path: Path) -> None:
    assert granted(tmp_path / "none") == 8
    quota = {"cpu__cpu.cfs_quota_us": "200000", "cpu__cpu.cfs_period_us": "100000"}
    assert granted(tmp_path / "two", **quota) == 2
    assert granted(tmp_path / "all", **{**quota, "cpu__cpu.cfs_quota_us": "-1"}) == 8
