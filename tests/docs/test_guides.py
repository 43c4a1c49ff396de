"""The guides' code, from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

DOCS = ROOT / "docs"
EXTENSION = ROOT / "tests" / "extension" / "headrace_regression"
GUIDES = ["transformers.md", "extend.md"]


def blocks(guide: str) -> list[re.Match[str]]:
    text = (DOCS / guide).read_text(encoding="utf-8")
    return list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_runs(guide: str) -> None:
    said: dict[str, Any] = {}
    found = blocks(guide)
    assert len(found) > 3
    for block in found:
        line = block.string[: block.start(1)].count("\n")
        # Its own lines in a traceback; blank lines may stand before a future import.
        exec(compile("\n" * line + block[1], str(DOCS / guide), "exec"), said)


NOTEBOOK = """
import asyncio, mlflow

async def cells():
    with mlflow.start_run() as active:
        exec(compile({code!r}, "guide.py", "exec"), {{"__name__": "__main__"}})
        assert mlflow.active_run().info.run_id == active.info.run_id
    return active.info

mlflow.set_experiment("mine")
active = asyncio.run(cells())
children = mlflow.search_runs([active.experiment_id], "tags.mlflow.parentRunId = '" +
    active.run_id + "'", output_format="list")
assert {{run.info.status for run in children}} == {{"FINISHED"}}, children
assert len(children) == 2, children
"""
"""The guide as a notebook runs it: within an event loop, and here within a run of MLflow too."""


@pytest.mark.parametrize("program", ["{code}", NOTEBOOK], ids=["program", "notebook"])
def test_the_guide_to_python_runs(program: str, tmp_path: Path) -> None:
    """In a process of its own, as Prefect reads the server's address when it is imported."""
    code = "\n".join(block[1] for block in blocks("python.md"))
    file = tmp_path / "program.py"
    file.write_text(program.format(code=code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env={
            **os.environ,
            "HEADRACE_HOME": str(tmp_path / "home"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Promoted" in done.stdout
    assert "never awaited" not in done.stderr


@pytest.mark.parametrize("guide", [*GUIDES, "python.md"])
def test_links_lead_somewhere(guide: str) -> None:
    links = re.findall(r"\]\((\.\./[^)#]+)\)", (DOCS / guide).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_the_objective_that_is_shown_is_the_one_that_is_tested() -> None:
    shown = [block[1] for block in blocks("extend.md")]
    for name in ("objective.py", "head.py"):
        assert (EXTENSION / name).read_text(encoding="utf-8") in shown
