"""Tables to score, and what of a job's output must be the same however it came about."""

from __future__ import annotations

import csv
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from headrace.serving.jobs import job
from headrace.serving.jobs.pipeline import OnChunk
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.tables.readers import read_table
from tests.serving.tiny_model import FILLER, WORDS

VOCABULARY = [*FILLER, *(word for words in WORDS.values() for word in words)]


def table(path: Path, n: int, seed: int = 0) -> Path:
    """`n` rows of id, text, label; every 17th has an empty text."""
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for i in range(n):
            words = draw.choices(VOCABULARY, k=0 if i % 17 == 3 else draw.randint(1, 20))
            writer.writerow([f"{i:04}", " ".join(words), draw.choice("xy")])
    return path


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def texts(path: Any, column: str = "text") -> list[tuple[str | None, str | None]]:
    """(text, error) of every row."""
    blocks = read_table(path, [column], text=[column])
    return [row for b in blocks for row in zip(b.columns[column], b.errors, strict=True)]


def parts(folder: Path) -> dict[str, bytes]:
    """All that must not depend on how often a job was interrupted."""
    kept = [*folder.glob("part-*"), *folder.glob("_commits/*"), folder / "_plan.json"]
    return {path.name: path.read_bytes() for path in sorted(kept)}


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file, when it was written, and what it holds."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of an output, in the order of the input."""
    return sorted(pq.read_table(folder).to_pylist(), key=lambda row: row["row"])


def run(
    model: Path,
    source: str | Path | list[Path] | list[str],
    output: str | Path,
    *,
    on_progress: job.OnProgress | None = None,
    on_chunk: OnChunk | None = None,
    **settings: Any,
) -> job.Report:
    settings = {"chunk_rows": 20, "model_version": "m/1", **settings}
    spec = JobSpec.of(model, source, output, **settings)
    return job.run(spec, on_progress=on_progress, on_chunk=on_chunk)


CHILD = """
import sys, time
from headrace.serving.jobs import job
from headrace.serving.tables.readers import read_table
model, source, output, form = sys.argv[1:]
job.score_table(model, source, output, keep=["id"], format=form, chunk_rows=20, model_version="m/1",
        token_budget=64, on_progress=lambda now: time.sleep(0.01))
"""


def start(model: Path, source: Path, output: Path, form: str) -> subprocess.Popen[bytes]:
    arguments = [str(model), str(source), str(output), form]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments])


def commits(output: Path) -> int:
    return len(list(output.glob("_commits/0*")))


def start_and_kill(
    model: Path, source: Path, output: Path, form: str, *, commits_first: int, then_s: float
) -> int:
    """SIGKILL so long after so many commits; the number of commits then."""
    child = start(model, source, output, form)
    while child.poll() is None and commits(output) < commits_first:
        time.sleep(0.001)
    time.sleep(then_s)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the job had ended"
    assert not (output / "_SUCCESS").exists()
    return commits(output)
