"""Jobs that are killed, cut short or out of space, and run again: the bytes stay the same."""

from __future__ import annotations

import errno
import gc
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.job_runs import commits, parts, run, start_and_kill, table


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_job_killed_again_and_again_gives_the_bytes_of_one_that_was_not(
    model: Path, tmp_path: Path, form: str
) -> None:
    source = table(tmp_path / "t.csv", 400)
    how = {"keep": ["id"], "format": form, "token_budget": 64}
    run(model, source, tmp_path / "whole", **how)

    output, draw = tmp_path / "killed", random.Random(form)
    killed_at = [
        start_and_kill(
            model, source, output, form, commits_first=wanted, then_s=draw.random() * 0.03
        )
        for wanted in (0, 5, 10)
    ]
    assert 5 <= killed_at[1] < 20

    report = run(model, source, output, **how)
    assert report.rows_now == 400 - 20 * killed_at[-1]
    assert parts(output) == parts(tmp_path / "whole")
    assert len(parts(output)) == 20 + 20 + 1
    assert not list(output.glob(".part*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_jobs_killed_at_random_instants(model: Path, tmp_path: Path) -> None:
    """Half of them between the first and the last commit; some parts truncated on the way."""
    source = table(tmp_path / "t.csv", 400)
    how = {"keep": ["id"], "token_budget": 64}
    run(model, source, tmp_path / "whole", **how)
    whole = parts(tmp_path / "whole")
    draw, between = random.Random(0), 0
    for number in range(100):
        output = tmp_path / f"job-{number}"
        first = draw.randint(1, 18) if number % 3 else 0
        # Before its first commit a job takes about half a second to come up.
        then_s = draw.random() * (0.05 if first else 0.5)
        left = start_and_kill(model, source, output, "parquet", commits_first=first, then_s=then_s)
        between += 1 <= left < 20
        if left and number % 4 == 0:
            part = output / f"part-{draw.randrange(left):05}.parquet"
            os.truncate(part, draw.randrange(part.stat().st_size))
        run(model, source, output, **how)
        assert parts(output) == whole, f"job {number}, killed after {left} commits"
    print(f"{between} of 100 kills fell between the first and the last commit")
    assert between >= 50


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    gc.collect()  # an error that is remembered somewhere holds the file that could not be written
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_and_room_lets_the_job_go_on(
    model: Path, tmp_path: Path, small_disk: Path
) -> None:
    source = table(tmp_path / "t.csv", 400)
    run(model, source, tmp_path / "whole")
    (small_disk / "somebody's").write_bytes(b"x" * 64 * 1024)
    output = small_disk / "out"
    with pytest.raises(OSError, match="No space left on device") as full:
        run(model, source, output)
    assert full.value.errno == errno.ENOSPC
    done = commits(output)
    assert 0 < done < 20
    assert not list(output.rglob(".*.tmp")), "what was half written takes no room"

    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert run(model, source, output).rows_now == 400 - 20 * done
    assert parts(output) == parts(tmp_path / "whole")


def test_what_is_done_stays_and_what_is_damaged_is_done_again(model: Path, tmp_path: Path) -> None:
    source, output = table(tmp_path / "t.csv", 100), tmp_path / "out"
    run(model, source, output)
    before = parts(output)
    changed_at = {name: (output / name).stat().st_mtime_ns for name in before if "part" in name}

    assert run(model, source, output).rows_now == 0

    (output / "part-00001.parquet").write_bytes(b"damaged")
    (output / "part-00002.parquet").unlink()
    (output / "_commits" / "00003.json").unlink()
    (output / "_commits" / "00004.json").write_text('{"chunk": 4, "fil')
    report = run(model, source, output)
    assert (report.rows, report.rows_now) == (100, 80)
    assert parts(output) == before
    first = "part-00000.parquet"
    assert (output / first).stat().st_mtime_ns == changed_at[first]
