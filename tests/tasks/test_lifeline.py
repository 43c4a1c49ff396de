import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from helpers import TAG, tagged, wait_until_gone

from tasks import lifeline

# Starts torchrun as training does: it imports torch for seconds, and starts workers, each in a
# session of its own, that never end by themselves.
WORKER = "import time; time.sleep(600)"
PARENT = """
import sys
from tasks import lifeline

args = ["--standalone", "--nproc-per-node=2", "-m", "tasks.lifeline", "worker"]
with lifeline.running("torch.distributed.run", args, stdout=sys.stderr) as process:
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
    with lifeline.running("timeit", ["-n1", "-r1", script]) as process:
        while not psutil.Process(process.pid).children():
            time.sleep(0.02)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
    assert process.returncode == -signal.SIGKILL
    assert [one for one in wait_until_gone(tag) if one.pid != os.getpid()] == []


def test_leaving_ends_politely_first(tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        "import os, pathlib, signal, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def bye(*_): said.write_text('bye'); os._exit(3)\n"
        "signal.signal(signal.SIGTERM, bye); said.write_text('ready'); time.sleep(600)"
    )
    with lifeline.running("timeit", ["-n1", "-r1", script]) as process:
        while not said.exists() or said.read_text() != "ready":
            time.sleep(0.02)
    assert said.read_text() == "bye"
    assert process.returncode == 3


def test_leaving_kills_one_that_will_not_go() -> None:
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    )
    with lifeline.running(
        "timeit", ["-n1", "-r1", script], patience_s=0.2, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_the_module_gets_its_arguments_and_gives_its_status() -> None:
    with lifeline.running("json.tool", ["--no-such-option"], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"--no-such-option" in process.stderr.read()
        assert process.wait() == 2
    process.stderr.close()
