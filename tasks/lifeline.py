"""Processes that do not outlive the one that started them.

    python -m tasks.lifeline MODULE ARGS...

runs MODULE as `python -m` would, and kills it and all its children as soon as standard input
closes. The parent holds the other end of that pipe, and the kernel closes it however the parent
ends, SIGKILL included. Children that inherit the pipe (torchrun's workers, each in a session of
its own) can be started through this module too and then watch for themselves.

`running(...)` is the parent's side. It must import nothing heavy: the watch has to be on before
MODULE spends seconds importing.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from configs import secrets

STDIN = 0
KILL_WAIT_S = 10.0


@contextlib.contextmanager
def running(
    module: str, args: Sequence[str] = (), *, patience_s: float = 5.0, **popen: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module args` while the body runs; afterwards it is gone, with its children.

    Asked first (SIGTERM, `patience_s` seconds to end), then killed. It gets a session of its own,
    so that Ctrl-C in a terminal reaches the parent alone. `popen`: stdout, stderr, env, cwd.
    A process forked from this one meanwhile, without exec, would hold the lifeline too.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.lifeline", module, *args],
        stdin=subprocess.PIPE,
        start_new_session=True,
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
        # Also for a process that ended by itself: its orphans hold the pipe, and end here.
        process.stdin.close()
        try:
            process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch() -> None:
    """Start to watch standard input; this process and its children die when it closes."""
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(STDIN, 4096):
            pass
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    watch()
    del sys.argv[0]
    secrets.note(sys.argv)
    secrets.guard()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
