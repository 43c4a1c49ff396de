"""Scoring on a Ray cluster of several nodes on this machine: real raylets, one of them killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.serving.errors import PlanError
from headrace.serving.jobs.spec import JobSpec
from headrace.tasks.scoring import ray_backend
from tests import ROOT
from tests.serving.job_runs import parts, run, table
from tests.serving.tiny_model import FEATURES, make_model

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

# Every worker takes its time, and dies at a certain text.
SLOW = """
import os, signal, time
from headrace.serving.text import tokenizer

encode = tokenizer.TextTokenizer.encode

def slow(self, texts):
    if any("deadly" in text for text in texts):
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.1 if len(texts) > 4 else 0)
    return encode(self, texts)

tokenizer.TextTokenizer.encode = slow
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes of one core each; their workers are slow."""
    from ray.cluster_utils import Cluster

    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        one.add_node(num_cpus=1)
    one.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", one.address)
    yield one
    one.shutdown()


def spec_of(model: Path, source: Path, output: Path, **settings: Any) -> JobSpec:
    return JobSpec.of(
        model, source, output, **{"chunk_rows": 20, "model_version": "m/1", **settings}
    )


@pytest.mark.slow
def test_a_node_is_killed_and_the_output_is_that_of_one_machine(
    cluster: Any, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model")
    source, output = table(tmp_path / "t.csv", 2000), tmp_path / "out"
    run(model, [source], tmp_path / "whole", keep=["id"])

    def kill() -> None:
        while len(list(output.glob("_commits/0*"))) < 20:
            time.sleep(0.01)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    seen: list[dict[str, int]] = []
    report = ray_backend.run(spec_of(model, source, output, keep=["id"]), seen.append)
    killer.join()
    assert (report["rows"], report["parts"]) == (2000, 100)
    assert (seen[-1]["rows"], seen[-1]["n_rows"]) == (2000, 2000)
    mine, ones = parts(output), parts(tmp_path / "whole")
    assert mine.pop("_plan.json")
    assert ones.pop("_plan.json")
    assert mine == ones


@pytest.mark.slow
def test_a_row_that_kills_workers_is_set_aside(cluster: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    source, output = tmp_path / "t.csv", tmp_path / "out"
    texts = [f"goal match {i}" for i in range(100)]
    texts[31] = "a deadly goal"
    source.write_text("\n".join(["text", *texts, ""]))
    report = ray_backend.run(spec_of(model, source, output))
    assert report["errors"] == {"killed_worker": 1}
    assert report["rows"] == 100


@pytest.mark.parametrize(
    "fields", [{}, pytest.param(FEATURES, marks=pytest.mark.slow, id="pairs-and-features")]
)
def test_one_machine_is_a_cluster_too(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = make_model(tmp_path / "model", **fields)
    source, output = table(tmp_path / "t.csv", 100), tmp_path / "out"
    if fields:
        renamed = source.read_text().replace("id,text,label", "amount,a,b", 1)
        source.write_text(renamed.replace("\n", ",north\n").replace(",north", ",shop", 1))
    run(model, source, tmp_path / "whole")
    report = ray_backend.run(spec_of(model, source, output))
    assert (report["rows"], report["rows_now"]) == (100, 100)
    mine, ones = parts(output), parts(tmp_path / "whole")
    assert {k: v for k, v in mine.items() if k != "_plan.json"} == {
        k: v for k, v in ones.items() if k != "_plan.json"
    }
    with pytest.raises(PlanError, match="chunk_rows was 20 and is now 30"):
        ray_backend.run(spec_of(model, source, output, chunk_rows=30))


def test_a_cluster_of_ours_reports_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # so that it is as before afterwards
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    ray_backend._ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
