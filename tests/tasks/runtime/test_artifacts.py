"""Artifacts: found when whole, made again when not, never half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.tasks.runtime import artifacts


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    return tmp_path


def make(text: str = "hello", **key: Any) -> artifacts.Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(text)
        return {"length": len(text)}

    return artifacts.make("stage", key=key, build=build)


def test_made_once_then_found() -> None:
    first, second = make(a=1), make(a=1)
    assert (first.cached, second.cached) == (False, True)
    assert (first.path, first.id) == (second.path, second.id)
    assert second.facts == {"length": 5}
    assert (second.path / "sub" / "file.txt").read_text() == "hello"


def test_another_key_input_or_library_is_another_artifact() -> None:
    one, other = make(a=1), make(a=2)
    assert one.digest != other.digest
    follow = [
        artifacts.make("next", key={}, inputs=[source], build=lambda folder: {})
        for source in (one, other)
    ]
    assert follow[0].digest != follow[1].digest
    versioned = artifacts.make("stage", key={"a": 1}, libraries=["numpy"], build=lambda folder: {})
    assert versioned.digest != one.digest


@pytest.mark.parametrize("damage", ["change", "remove", "add", "record"])
def test_a_damaged_folder_is_made_again_and_so_are_its_successors(
    damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = make(a=1)
    after = artifacts.make("next", key={}, inputs=[first], build=lambda folder: {})
    file = first.path / "sub" / "file.txt"
    {
        "change": lambda: file.write_text("hullo"),
        "remove": file.unlink,
        "add": lambda: (first.path / "more").touch(),
        "record": lambda: (first.path / artifacts.RECORD).write_text("{"),
    }[damage]()
    again = make(a=1)
    assert not again.cached
    assert again.digest == first.digest
    assert file.read_text() == "hello"
    assert f"stage: {first.digest} is damaged" in caplog.text
    assert artifacts.make("next", key={}, inputs=[again], build=lambda f: {}).path != after.path


def test_a_failed_build_leaves_nothing(home: Path) -> None:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "half").touch()
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        artifacts.make("stage", key={}, build=build)
    assert list((home / "artifacts" / "stage").iterdir()) == []


KILLED = """
import sys, time
from headrace.tasks.runtime import artifacts
def build(folder):
    (folder / "half").write_text("x")
    print("building", flush=True)
    time.sleep(60)
    return {}
artifacts.make("stage", key={"a": 1}, build=build)
"""


def test_a_killed_build_leaves_nothing_that_looks_finished(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env={**os.environ}
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"building\n"
        child.send_signal(signal.SIGKILL)
    assert [path.name[0] for path in (home / "artifacts" / "stage").iterdir()] == ["."]
    made = make(a=1)  # the lock died with the child, and its leavings go
    assert not made.cached
    assert [path.name for path in (home / "artifacts" / "stage").iterdir()] == [made.digest]


def test_two_makers_of_one_artifact_take_turns(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = KILLED.replace("time.sleep(60)", "time.sleep(3)") + 'print("done", flush=True)'
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ}
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"building\n"
        made = artifacts.make("stage", key={"a": 1}, build=lambda folder: {})
    assert made.cached
    assert (made.path / "half").read_text() == "x"
    waited = f"another process is making or checking stage {made.digest}; waiting for it"
    assert [entry.getMessage() for entry in caplog.records].count(waited) == 1
