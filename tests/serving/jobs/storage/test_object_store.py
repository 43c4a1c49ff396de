"""Tables and outputs in an object store: moto's server on loopback, through real connections."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from headrace.serving.errors import InputError, PlanError, ServingError
from headrace.serving.jobs import job
from headrace.serving.jobs.job import ProgressTracker
from headrace.serving.jobs.spec import JobSpec
from headrace.serving.jobs.storage import open_output
from tests.serving.job_runs import CHILD, parts, run, table
from tests.serving.jobs.test_chunks import ANY_VALUES, read_back

BUCKET = "s3://headrace"


class Proxy:
    """Between the client and the store; can drop connections in the middle of an answer."""

    def __init__(self, port: int) -> None:
        self._store = port
        self.drop = 0
        """How many of the next answers of more than `after` bytes are to break off."""
        self.after = 20_000
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                store = socket.create_connection(("127.0.0.1", self._store))
                for source, sink, answers in ((client, store, False), (store, client, True)):
                    pump = threading.Thread(target=self._pump, args=(source, sink, answers))
                    pump.daemon = True
                    pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                sink.sendall(data)
                passed += len(data)
                if answers and self.drop and passed > self.after:
                    self.drop -= 1
                    # Reset, as a network that fails does; not an orderly end.
                    linger = struct.pack("ii", 1, 0)
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def proxy(store: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """An empty bucket, reached through a proxy."""
    one = Proxy(store)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{one.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    type(filesystem).clear_instance_cache()
    with contextlib.suppress(FileNotFoundError):
        filesystem.rm(BUCKET, recursive=True)
    filesystem.makedir(BUCKET)
    yield one
    type(filesystem).clear_instance_cache()
    one.close()


def put(name: str, path: Path) -> str:
    url = f"{BUCKET}/{name}"
    fsspec.filesystem("s3").pipe_file(url, path.read_bytes())
    return url


def fetched(url: str, folder: Path) -> Path:
    fsspec.filesystem("s3").get(f"{url}/", f"{folder}/", recursive=True)
    return folder


def rows_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in parts(folder).items() if name.startswith("part")}


def test_without_credentials_one_line_says_so(
    model: Path, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    type(fsspec.filesystem("s3")).clear_instance_cache()
    source = table(tmp_path / "t.csv", 3)
    with pytest.raises(InputError, match=r"s3://headrace/in cannot be read: .*credentials"):
        run(model, f"{BUCKET}/in", tmp_path / "out")
    with pytest.raises(InputError, match=r"s3://headrace/out cannot be read: .*credentials"):
        run(model, source, f"{BUCKET}/out")


def test_a_table_in_a_bucket_is_scored_into_a_bucket(
    model: Path, tmp_path: Path, proxy: Proxy
) -> None:
    sources = [table(tmp_path / f"{n}.csv", 45, seed=n) for n in range(2)]
    run(model, sources, tmp_path / "whole", keep=["id"])
    for n, source in enumerate(sources):
        put(f"in/day={n}/t.csv", source)
    put("in/_SUCCESS", Path(os.devnull))
    report = run(model, f"{BUCKET}/in", f"{BUCKET}/out", keep=["id"])
    assert (report.rows, report.parts) == (90, 5)
    there = fetched(f"{BUCKET}/out", tmp_path / "there")
    assert rows_of(there) == rows_of(tmp_path / "whole")
    assert (there / "_SUCCESS").exists()
    assert run(model, f"{BUCKET}/in/*/t.csv", f"{BUCKET}/out", keep=["id"]).rows_now == 0

    put("out/part-00001.parquet", Path(os.devnull))
    again = run(model, f"{BUCKET}/in", f"{BUCKET}/out", keep=["id"])
    assert again.rows_now == 20
    assert rows_of(fetched(f"{BUCKET}/out", tmp_path / "again")) == rows_of(tmp_path / "whole")


def test_partitions_in_the_path_are_columns(model: Path, tmp_path: Path, proxy: Proxy) -> None:
    for day in ("007", "x%2Fy"):
        put(f"in/day={day}/t.csv", table(tmp_path / "t.csv", 3))
    run(model, f"{BUCKET}/in", tmp_path / "out", keep=["day"])
    assert pq.read_table(tmp_path / "out")["day"].to_pylist() == ["007"] * 3 + ["x/y"] * 3


def test_any_value_has_a_folder_in_a_bucket(model: Path, tmp_path: Path, proxy: Proxy) -> None:
    source, url = tmp_path / "t.jsonl", f"{BUCKET}/out"
    lines = [json.dumps({"text": "soup", "kind": value}) for value in ANY_VALUES]
    source.write_text("\n".join(lines))
    run(model, source, url, keep=["kind"], partition_by="kind")
    assert read_back(url, "kind") == list(enumerate(ANY_VALUES))
    assert run(model, source, url, keep=["kind"], partition_by="kind").rows_now == 0


@pytest.mark.parametrize("ending", ["csv.gz", "parquet"])
def test_a_dropped_connection_is_tried_again(
    model: Path, tmp_path: Path, proxy: Proxy, ending: str
) -> None:
    texts = [f"the old soup {i} near {os.urandom(40).hex()}" for i in range(3000)]
    source = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"text": texts}), source, compression="none")
    else:
        with fsspec.open(str(source), "wt", compression="gzip") as file:
            file.write("\n".join(["text", *texts, ""]))
    how = {"chunk_rows": 1000, "format": "csv"}
    run(model, source, tmp_path / "whole", **how)
    url = put(f"in/t.{ending}", source)
    proxy.drop = 3
    report = run(model, url, f"{BUCKET}/out", **how)
    assert proxy.drop == 0
    assert report.rows == 3000
    assert rows_of(fetched(f"{BUCKET}/out", tmp_path / "out")) == rows_of(tmp_path / "whole")


def test_a_job_killed_in_a_bucket_goes_on(model: Path, tmp_path: Path, proxy: Proxy) -> None:
    source = table(tmp_path / "t.csv", 400)
    how: dict[str, Any] = {"keep": ["id"], "token_budget": 64}
    run(model, source, tmp_path / "whole", **how)
    output = open_output(f"{BUCKET}/out")
    arguments = [str(model), str(source), str(output), "parquet"]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
    while child.poll() is None and output.get("_commits/00004.json") is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the job had ended"
    done = len(output.committed_records(20))
    assert 5 <= done < 20
    report = run(model, source, str(output), **how)
    assert report.rows_now == 400 - 20 * done
    assert rows_of(fetched(str(output), tmp_path / "out")) == rows_of(tmp_path / "whole")


# Ends before the store is asked for the n-th time to keep or remove an object.
KILLED = """
import os, signal, sys
from headrace.serving.jobs import job
from headrace.serving.jobs.storage.object_store import ObjectOutput

model, source, output, step = sys.argv[1:]
left = int(step)

def counted(call):
    def counting(*given, **how):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **how)
    return counting

ObjectOutput._put = counted(ObjectOutput._put)
ObjectOutput.remove = counted(ObjectOutput.remove)
job.score_table(model, source, output, chunk_rows=3, model_version="m/1", partition_by="label",
        retry_rejected=True)
"""


@pytest.mark.parametrize("retry", [True, False])
def test_a_retry_killed_between_two_records_of_a_chunk_leaves_no_old_partition(
    model: Path, tmp_path: Path, proxy: Proxy, retry: bool
) -> None:
    source, url = tmp_path / "t.csv", f"{BUCKET}/out"
    how: dict[str, Any] = {"chunk_rows": 3, "partition_by": "label"}
    source.write_text('text\nsoup\n""\nmoon\n')
    run(model, source, url, **how)
    fsspec.filesystem("s3").pipe_file(f"{url}/notes.txt", b"mine")
    source.write_text("text\nsoup\ngoal\nmoon\n")
    # The quarantine, the plan, _SUCCESS, the record; the next are the new parts.
    given = [str(model), str(source), url, "5"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *given], check=False)
    assert killed.returncode == -signal.SIGKILL
    output = open_output(url)
    assert output.get("_commits/00000.json") is None
    assert output.get("label=__HIVE_DEFAULT_PARTITION__/part-00000.parquet") is not None
    report = run(model, source, url, retry_rejected=retry, **how)
    assert (report.rows, report.errors, report.other_files) == (3, {}, ["notes.txt"])
    record = output.read("_commits/00000.json") or {}
    parts_named = {file["name"] for file in record["files"]}
    assert parts_named == {f"label={one}/part-00000.parquet" for one in ("food", "sport", "space")}
    records = {"_plan.json", "_report.json", "_SUCCESS", "_commits/00000.json"}
    assert set(output.files()) == parts_named | records | {"notes.txt"}


def test_of_two_jobs_at_one_output_each_chunk_counts_once(
    model: Path, tmp_path: Path, proxy: Proxy
) -> None:
    source = table(tmp_path / "t.csv", 60)
    url = f"{BUCKET}/out"
    spec = JobSpec.of(model, source, url, chunk_rows=20, model_version="m/1")
    with job.open_job(spec) as first:
        second = run(model, source, url)
        assert second.rows_now == 60
        records = open_output(url).committed_records(3)
        todo = iter(first.pending_chunks)
        counted = ProgressTracker(first, None)
        first.open_pipeline().run(lambda: next(todo, None), counted.on_chunk, counted.on_batch)
        assert first.records == records
        first.finish()
    assert open_output(url).committed_records(3) == records


def test_what_cannot_be_reached_is_named(model: Path, tmp_path: Path, proxy: Proxy) -> None:
    with pytest.raises(InputError, match="no tables found at s3://headrace/nothing"):
        run(model, f"{BUCKET}/nothing", tmp_path / "out")
    with pytest.raises(InputError, match="s3://nowhere/in cannot be read: The specified bucket"):
        run(model, "s3://nowhere/in", tmp_path / "out")
    with pytest.raises(InputError, match=r"nope://x/t\.csv cannot be reached: .*nope"):
        run(model, "nope://x/t.csv", tmp_path / "out")
    source = table(tmp_path / "t.csv", 3)
    with pytest.raises(ServingError, match="s3://nowhere/out cannot be written: The specified"):
        run(model, source, "s3://nowhere/out")
    put("other/thesis.tex", source)
    with pytest.raises(
        PlanError, match=r"s3://headrace/other contains thesis\.tex but no _plan\.json"
    ):
        run(model, source, f"{BUCKET}/other")
