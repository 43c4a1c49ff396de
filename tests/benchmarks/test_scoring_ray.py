"""Ray beside one process: as many workers as cores, each a node of one core, on this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.schema import DocstringsSource
from headrace.serving.jobs import job
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.scoring import ray_backend
from tests.benchmarks.machine import table, write_page
from tests.benchmarks.scoring_model import PACKAGES, fine_tuned

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
AT_LEAST = 0.9


def docstrings(path: Path, n: int) -> Path:
    from headrace.tasks.data.sources.docstrings import open_source

    source = DocstringsSource(kind="docstrings", packages=PACKAGES, per_package=n, form="whole")
    texts = [text for b in open_source(source).splits["train"].read() for text in b.columns["text"]]
    pq.write_table(pa.table({"text": texts}), path)
    return path


def test_ray_is_as_fast_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    model, cores = fine_tuned()[1].path / "model", len(os.sched_getaffinity(0))
    source = docstrings(tmp_path / "texts.parquet", 1500)
    spec = JobSpec.of(model, source, tmp_path / "ray", chunk_rows=500, model_version="m/1")
    alone = job.run(replace(spec, output=str(tmp_path / "alone")))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(cores - 1):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        shared = ray_backend.run(spec)
    finally:
        cluster.shutdown()
    share = shared["tokens_per_second"] / alone.tokens_per_second
    rows = [
        ["one process", f"{alone.tokens_per_second:,.0f}", ""],
        [f"Ray, {cores} workers", f"{shared['tokens_per_second']:,.0f}", f"{share:.2f}"],
    ]
    text = f"{alone.rows:,} docstrings, {alone.tokens:,} tokens, file to file, on {cores} cores."
    page = table(["", "tokens/s", "share of one process"], rows)
    write_page("ray", "Scoring on a Ray cluster", "make bench", f"{text}\n\n{page}")
    assert share >= AT_LEAST
