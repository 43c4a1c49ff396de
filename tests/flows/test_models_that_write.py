"""Models that write, from a recipe to scored rows: a decoder, and an encoder with a decoder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml

from headrace.tasks.registry import tracking
from headrace.tasks.registry.resolve import resolve
from tests import fabricated
from tests.serving import job_runs
from tests.toy import sentences

Call = Callable[..., tuple[int, Any, str]]

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
RECIPES: dict[str, dict[str, Any]] = {
    "generation": {
        "options": {"max_new_tokens": 8, "temperature": 0.7, "seed": 3},
        "model": {"model_type": "transformer-decoder", "config": {**SMALL, "positions": "rotary"}},
    },
    "translation": {
        "options": {"max_new_tokens": 12, "num_beams": 2},
        "model": {
            "model_type": "transformer-encoder-decoder",
            "config": {**SMALL, "num_decoder_layers": 1},
        },
    },
}


def write_pairs(path: Path) -> Path:
    """A table whose second column is the first one in capitals."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "target"])
        for text, _ in sentences(400):
            short = " ".join(text.split()[:5])
            writer.writerow([short, short.upper()])
        writer.writerow(["", "NOTHING"])
    return path


def recipe(objective: str, table: Path) -> Path:
    own = RECIPES[objective]
    path = table.with_suffix(".yaml")
    scratch = {"vocab_size": 300, **own["model"]}
    content = {
        "name": f"tiny-{objective}",
        "objective": objective,
        "options": own["options"],
        "data": {"source": {"kind": "files", "train": str(table)}, "deduplicate": {"near": False}},
        "model": {"source": "scratch", "max_length": 24, "scratch": scratch},
        "train": {"max_steps": 40, "batch_tokens": 512, "learning_rate": 0.003},
        "export": {"gate": {"rows": 32, "max_metric_drop": 1}, "calibration_rows": 32},
        "evaluate": {"resamples": 100},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass(frozen=True)
class Registered:
    """A model that went from a table into the registry."""

    objective: str
    table: Path
    outcome: dict[str, Any]

    @property
    def name(self) -> str:
        return f"tiny-{self.objective}"

    @property
    def column(self) -> str:
        return {"generation": "completion", "translation": "output"}[self.objective]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str
) -> Callable[[str], tuple[Path, Registered]]:
    """Workspace and model by objective, each made once, in whatever order the tests come."""

    @cache
    def trained(objective: str) -> tuple[Path, Registered]:
        folder = tmp_path_factory.mktemp(objective)
        home, table = folder / "home", write_pairs(folder / "pairs.csv")
        done = subprocess.run(
            [
                sys.executable, "-m", "headrace.flows.cli",
                "train", recipe(objective, table), "--json",
            ],
            env={**os.environ, "HEADRACE_HOME": str(home)},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return home, Registered(objective, table, json.loads(done.stdout.splitlines()[-1]))

    return trained


@pytest.fixture(params=RECIPES)
def registered(
    request: pytest.FixtureRequest,
    made: Callable[[str], tuple[Path, Registered]],
    monkeypatch: pytest.MonkeyPatch,
) -> Registered:
    """In a workspace of its own, which is that of the tests too."""
    home, found = made(request.param)
    monkeypatch.setenv("HEADRACE_HOME", str(home))
    return found


def test_the_report_shows_what_is_written_and_what_is_looked_at(registered: Registered) -> None:
    variants = {one["name"]: one["status"] for one in registered.outcome["variants"]}
    assert variants["fp32"] == "kept"
    stages = {one["stage"]: one for one in registered.outcome["stages"]}
    found = json.loads(Path(stages["evaluate"]["folder"], "metrics.json").read_bytes())
    assert {one["name"] for one in found["slices"]} == {"length"}  # a text is no label
    page = Path(registered.outcome["report"]).read_text(encoding="utf-8")
    assert "the generated text and the reference" in page
    assert page.count("<h2>Attention</h2>") == 1
    has_signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp" in page
    assert has_signature == (registered.objective == "translation")
    assert page.count("Attention maps of all heads") == 1


def test_rows_are_scored_by_the_registered_model(
    headrace: Call, registered: Registered, tmp_path: Path
) -> None:
    output, column = tmp_path / "out", registered.column
    code, report, _ = headrace("score", registered.name, registered.table, output)
    assert code == 0
    assert (report["rows"], report["errors"]) == (401, {"empty_text": 1})
    rows = pq.read_table(output).to_pylist()
    assert [row["row"] for row in rows] == list(range(401))
    assert [row["row"] for row in rows if row[column] is None] == [400]
    assert {row["model_version"] for row in rows} == {f"{registered.name}/1"}
    if registered.objective == "generation":
        assert {row["finish_reason"] for row in rows[:400]} <= {"end_token", "max_tokens"}
        ended = sum(row["finish_reason"] == "end_token" for row in rows)
        assert report["written_tokens"] == sum(row["tokens"] or 0 for row in rows) + ended
        assert max(row["tokens"] for row in rows[:400]) <= 8
        assert "length" not in report["drift"]  # prompts are no whole texts
    else:
        assert all(row["score"] < 0 for row in rows[:400])
        assert 400 <= report["written_tokens"] <= 400 * 12
        assert "length" in report["drift"]


def test_how_it_writes_can_be_chosen(
    headrace: Call, registered: Registered, tmp_path: Path
) -> None:
    call = ["score", registered.name, registered.table]
    code, value, _ = headrace(*call, tmp_path / "no", "--option", "temprature=1")
    assert (code, value["error"].split(";")[0]) == (2, "this model has no option 'temprature'")
    code, value, _ = headrace(*call, tmp_path / "no", "--option", "max_new_tokens=many")
    assert (code, value["error"]) == (2, "max_new_tokens must be an integer, not 'many'")

    for option, said in (
        ("model=3", "--option model is a job setting; use its own flag"),
        ("temperature", "option 'temperature': write it as NAME=VALUE"),
        ("num_beams=1e3", "num_beams must be an integer, not 1000.0"),
    ):
        code, value, _ = headrace(*call, tmp_path / "no", "--option", option)
        assert (code, value["error"]) == (2, said)
    if registered.objective == "generation":
        code, value, _ = headrace(*call, tmp_path / "no", "--option", "likelihood=banana")
        assert (code, value["error"]) == (2, "likelihood must be true or false, not 'banana'")

    def written(folder: str, *options: str) -> list[str | None]:
        given = [word for one in options for word in ("--option", one)]
        assert headrace(*call, tmp_path / folder, *given)[0] == 0
        found: list[str | None] = pq.read_table(tmp_path / folder)[registered.column].to_pylist()
        return found

    assert max(len(one or "") for one in written("short", "max_new_tokens=1")) < 24
    if registered.objective == "generation":  # whose recipe draws
        assert written("first", "seed=1") != written("second", "seed=2")
        likeliest = [written(f"likeliest-{seed}", "temperature=0", f"seed={seed}") for seed in "12"]
        assert likeliest[0] == likeliest[1]


def test_a_killed_job_gives_the_bytes_of_one_that_was_not(
    registered: Registered, tmp_path: Path
) -> None:
    model, source = resolve(registered.name).folder, job_runs.table(tmp_path / "t.csv", 400)
    how = {"keep": ["id"], "token_budget": 64}
    job_runs.run(model, source, tmp_path / "whole", **how)
    output = tmp_path / "killed"
    for first in (1, 8):
        left = job_runs.start_and_kill(
            model, source, output, "parquet", commits_first=first, then_s=0.01
        )
        assert first <= left < 20
    report = job_runs.run(model, source, output, **how)
    assert report.rows_now == 400 - 20 * left
    assert job_runs.parts(output) == job_runs.parts(tmp_path / "whole")


def test_pyfunc_answers_without_torch(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
    texts = pacsv.read_csv(registered.table)["text"].to_pylist()[:3]
    program = (
        "import json, sys, mlflow; "
        f"model = mlflow.pyfunc.load_model('models:/{registered.name}/1'); "
        f"found = model.predict(json.loads(sys.argv[1]))['{registered.column}'].tolist(); "
        "print(json.dumps([found, 'torch' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([*texts, ""])],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    answers, has_torch = json.loads(done.stdout.splitlines()[-1])
    assert not has_torch
    assert answers[3] is None
    assert all(isinstance(one, str) for one in answers[:3])


@pytest.mark.slow
def test_mlflow_models_serve_answers(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
    command = ["mlflow", "models", "serve", "-m", f"models:/{registered.name}@champion"]
    given = {"inputs": ["the old rocket", None], "params": {"max_new_tokens": 4}}
    with fabricated.server([*command, "--env-manager", "local"], "/ping") as address:
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps(given).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            first, second = json.loads(answer.read())["predictions"]
    assert isinstance(first[registered.column], str)
    assert (second[registered.column], second["error"]) == (None, "null_text")
