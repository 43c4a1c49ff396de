"""Child processes: none outlives its parent, and each says why it ended."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from headrace.tasks.runtime import supervised_process
from tests.helpers import TAG, tagged, wait_until_gone

# Starts torchrun as training does: it imports torch for seconds, and starts workers, each in a
# session of its own, that never end by themselves.
WORKER = "import time; time.sleep(600)"
PARENT = """
import sys
from headrace.tasks.runtime import supervised_process

supervised = "headrace.tasks.runtime.supervised_process"
args = ["--standalone", "--nproc-per-node=2", "-m", supervised, "worker"]
with supervised_process.running("torch.distributed.run", args, stdout=sys.stderr) as process:
    print("started", flush=True)
    process.wait()
"""


@pytest.mark.parametrize("after_s", [0.0, 0.2, 1.0, 4.0])
def test_nothing_outlives_a_killed_parent(after_s: float, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    tag = uuid.uuid4().hex
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, TAG: tag, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        time.sleep(after_s)
        assert len(tagged(tag)) >= 2
        parent.kill()
    assert wait_until_gone(tag) == []


def test_children_that_hold_no_lifeline_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = uuid.uuid4().hex
    monkeypatch.setenv(TAG, tag)
    script = "import subprocess; subprocess.run(['sleep', '600'], stdin=subprocess.DEVNULL)"
    # timeit runs a statement: a module of the standard library that can start a child
    with supervised_process.running("timeit", ["-n1", "-r1", script]) as process:
        while not psutil.Process(process.pid).children():
            time.sleep(0.02)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
    # Its child is killed first: it may end by itself before its own turn.
    assert process.returncode in (0, -signal.SIGKILL)
    assert [one for one in wait_until_gone(tag) if one.pid != os.getpid()] == []


def test_leaving_ends_politely_first(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        "import os, pathlib, signal, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def bye(*_): said.write_text('bye'); os._exit(3)\n"
        "signal.signal(signal.SIGTERM, bye); said.write_text('ready'); time.sleep(600)"
    )
    with supervised_process.running("timeit", ["-n1", "-r1", script]) as process:
        while not said.exists() or said.read_text() != "ready":
            time.sleep(0.02)
    assert said.read_text() == "bye"
    assert process.returncode == 3


def test_leaving_kills_one_that_will_not_go() -> None:
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    )
    with supervised_process.running(
        "timeit", ["-n1", "-r1", script], patience_s=0.2, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_the_module_gets_its_arguments_and_gives_its_status() -> None:
    with supervised_process.running(
        "json.tool", ["--no-such-option"], stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert b"--no-such-option" in process.stderr.read()
        assert process.wait() == 2
    process.stderr.close()


FOREIGN = """
import subprocess, sys
import headrace
assert not hasattr(headrace, "FOREIGN"), headrace.__file__
child = "import headrace, sys; sys.exit(hasattr(headrace, 'FOREIGN'))"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a module that is found as installed ones are; gives its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    def make(content: str) -> str:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "headrace_probe.py").write_text(content)
        return "headrace_probe"

    return make


@pytest.mark.parametrize("with_env", [False, True])
def test_modules_of_the_current_folder_are_not_ours(
    tmp_path: Path, with_env: bool, installed: Callable[[str], str]
) -> None:
    """Such as a checkout of another version; nor for the processes that it starts."""
    (tmp_path / "headrace.py").write_text("FOREIGN = True")
    module, env = installed(FOREIGN), dict(os.environ) if with_env else None
    with supervised_process.running(module, cwd=tmp_path, env=env) as process:
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("import json.no_such", "ModuleNotFoundError: No module named 'json.no_such'"),
        ("import sys; sys.exit('the disk is full')", "the disk is full"),
        ("import sys; sys.exit(5)", "exited with status 5"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL; check memory"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV; check memory"),
    ],
)
def test_a_process_that_ended_says_why(
    content: str,
    why: str,
    installed: Callable[[str], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with supervised_process.running(installed(content), stderr=subprocess.PIPE) as process:
        assert supervised_process.StderrListener(process).exit_reason() == why
    said = capfd.readouterr().err
    assert (why in said) == (process.returncode == 1)


def test_of_several_tracebacks_the_first_is_the_cause() -> None:
    said = b"""W1125 torchrun
Traceback (most recent call last):
  File "trainer.py", line 1, in <module>
    import torch
ImportError: libgomp.so.1: cannot open shared object file
Traceback (most recent call last):
  File "run.py", line 1, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
=====
"""
    expected = "ImportError: libgomp.so.1: cannot open shared object file"
    assert supervised_process.last_words(said) == expected
    assert supervised_process.last_words(b"") == ""
