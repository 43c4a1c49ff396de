"""A bench of hours can be gone on with: HEADRACE_BENCH_HOME keeps what its stages made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kept = os.environ.get("HEADRACE_BENCH_HOME")
    home = Path(kept).resolve() if kept else tmp_path_factory.mktemp("headrace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        yield home
