"""Processes that do not outlive the process that started them.

    python -m headrace.tasks.runtime.supervised_process MODULE ARGS...

runs MODULE as `python -m` would, and kills it and all its children as soon as standard input
closes. The parent holds the other end of that pipe, and the kernel closes it however the parent
ends, SIGKILL included. Children that inherit the pipe (torchrun's workers, each in a session of
its own) can be started through this module too and then watch the pipe themselves.

`running(...)` is the parent's side; every process of ours is started by it. This module must import
nothing heavy: the watch has to start before MODULE spends seconds importing.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypedDict, Unpack

import psutil

from headrace.configs import secrets

STDIN, STDERR = 0, 2
KILL_WAIT_S = 10.0
TRACEBACK = "Traceback (most recent call last):"
LINES, LINE_CHARS = 50, 300
"""Lines of standard error that are kept, and characters of a line that are shown."""


class PopenArguments(TypedDict, total=False):
    """The arguments of Popen that a caller of `running` may choose."""

    stdout: IO[bytes] | int
    stderr: IO[bytes] | int
    cwd: Path | str
    pass_fds: Sequence[int]


class StderrListener:
    """Standard error of a process: passed on to ours, its last lines kept to say why it ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._said = process, deque[bytes](maxlen=LINES)
        self._listener = threading.Thread(target=self._listen, name="overheard", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said.append(line)
                os.write(STDERR, line)

    def exit_reason(self) -> str:
        """Return why it ended: the signal that ended it, or its last words, e.g. an exception."""
        code = self._process.wait(KILL_WAIT_S)
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; check memory"
        self._listener.join(1.0)
        return last_words(b"".join(self._said)) or f"exited with status {code}"


def last_words(output: bytes) -> str:
    """Return why a process ended: the exception of its first traceback, or its last line."""
    lines = [line.rstrip() for line in output.decode(errors="replace").split("\n") if line.strip()]
    start = lines.index(TRACEBACK) + 1 if TRACEBACK in lines else len(lines)
    exception = next((line for line in lines[start:] if not line.startswith(" ")), None)
    return (exception or "".join(lines[-1:])).strip()[:LINE_CHARS]


@contextlib.contextmanager
def running(
    module: str,
    args: Sequence[str] = (),
    *,
    patience_s: float = 5.0,
    env: Mapping[str, str] | None = None,
    **popen: Unpack[PopenArguments],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module args` while the body runs, then end it with all its children.

    It gets SIGTERM and `patience_s` seconds to end, then it is killed. It has its own session, so
    that Ctrl-C in a terminal reaches only the parent. `popen`: arguments of Popen, such as stdout,
    stderr and cwd. Modules are found where they are installed, never in the current folder, whose
    `tasks.py` or `configs/` is not ours; the same holds for the processes that it starts.
    A process forked from this one meanwhile, without exec, would also hold the pipe open.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "headrace.tasks.runtime.supervised_process", module, *args],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**(env or os.environ), "PYTHONSAFEPATH": "1"},
        **popen,
    )
    try:
        yield process
    finally:
        _stop(process, patience_s)


def _stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    assert process.stdin is not None
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    finally:
        # Also if the process ended by itself: its orphans watch the pipe, and end here.
        process.stdin.close()
        try:
            process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch() -> None:
    """Start to watch standard input; when it closes, this process and its children are killed."""
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(STDIN, 4096):
            pass
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.Process().kill()  # SIGKILL, or what Windows has for it


if __name__ == "__main__":
    watch()
    del sys.argv[0]
    secrets.note(sys.argv)
    secrets.guard()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
