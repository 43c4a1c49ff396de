"""Memory of a scoring job, by the number of its rows: it must not grow with them.

The process that scores is the one that is measured, at its highest: VmHWM, since ru_maxrss is never
below what the process that started it had.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.benchmarks.machine import table, write_page
from tests.benchmarks.scoring_model import fine_tuned

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

LIMIT_MB = 1_500
GROWTH = 1.15
ONE_JOB = """
import json, re, sys
from pathlib import Path
from headrace.serving.jobs import job

model, source, output = sys.argv[1:]
report = job.score_table(model, source, output)
peak_kb = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps({"peak_mb": int(peak_kb) / 1024, "rows": report.rows, "errors": report.errors}))
"""


@pytest.fixture(scope="module")
def model() -> Path:
    return fine_tuned()[1].path / "model"


def short_rows(path: Path, n: int) -> Path:
    """`n` sentences of two to six words, written a row group at a time."""
    draw = random.Random(0)
    words = ["the", "a", "near", "goal", "moon", "soup", "bread", "orbit", "team", "planet"]
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, n, 100_000):
            some = [" ".join(draw.choices(words, k=draw.randint(2, 6))) for _ in range(100_000)]
            file.write_table(pa.table({"text": some[: n - start]}))
    return path


def scored(model: Path, source: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", ONE_JOB, str(model), str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_memory_does_not_grow_with_the_table(model: Path, tmp_path: Path) -> None:
    found = {
        f"{n:,} short rows": scored(
            model, short_rows(tmp_path / f"{n}.parquet", n), tmp_path / f"{n}"
        )
        for n in (200_000, 2_000_000)
    }
    few, many = found.values()
    odd = tmp_path / "odd.csv"
    odd.write_text("text\n" + "word " * 1_000_000 + "\n")
    found["one text of 5 MB"] = scored(model, odd, tmp_path / "odd")
    odd.write_text("text\n" + '""\n' * 100_000)
    found["100,000 empty rows"] = scored(model, odd, tmp_path / "empty")
    rows = [[what, f"{one['peak_mb']:,.0f}"] for what, one in found.items()]
    write_page(
        "scoring-memory",
        "Memory of a scoring job, MiniLM-L6",
        "make bench",
        table(["table", "peak of the process, MB"], rows),
    )
    assert (many["rows"], many["errors"]) == (2_000_000, {})
    assert found["one text of 5 MB"]["errors"] == {}
    assert found["100,000 empty rows"]["errors"] == {"empty_text": 100_000}
    assert many["peak_mb"] < GROWTH * few["peak_mb"]
    assert many["peak_mb"] < LIMIT_MB
