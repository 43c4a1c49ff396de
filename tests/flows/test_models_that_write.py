"""Models that write, from a recipe to scored rows: a decoder, and an encoder with a decoder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from jobs import parts
from toy import sentences

from serving import job
from tasks.models import resolve

Call = Callable[..., tuple[int, Any, str]]

pytestmark = pytest.mark.usefixtures("home", "prefect_api")

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
        "options": {"max_new_tokens": 12, "beams": 2},
        "model": {
            "model_type": "transformer-encoder-decoder",
            "config": {**SMALL, "num_decoder_layers": 1},
        },
    },
}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A table whose second column is the first one in capitals."""
    path = tmp_path / "pairs.csv"
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
        "export": {"gate": {"rows": 32, "max_metric_drop": 5}, "calibration_rows": 32},
        "evaluate": {"resamples": 100},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("objective", RECIPES)
def test_from_a_table_to_texts(headrace: Call, objective: str, pairs: Path, tmp_path: Path) -> None:
    code, outcome, _ = headrace("train", recipe(objective, pairs))
    assert code == 0
    assert [one["status"] for one in outcome["variants"] if one["name"] == "fp32"] == ["kept"]
    page = Path(outcome["report"]).read_text(encoding="utf-8")
    assert "what the model was given" in page

    name, output = f"tiny-{objective}", tmp_path / "out"
    code, report, _ = headrace("score", name, pairs, output, "--chunk-rows", "50")
    assert code == 0
    assert (report["rows"], report["errors"]) == (401, {"empty_text": 1})
    rows = pq.read_table(output).to_pylist()
    column = {"generation": "completion", "translation": "output"}[objective]
    assert [row["row"] for row in rows if row[column] is None] == [400]
    assert {row["model_version"] for row in rows} == {f"{name}/1"}
    if objective == "generation":
        assert {row["finish_reason"] for row in rows[:400]} <= {"end_token", "max_tokens"}
        assert max(row["tokens"] for row in rows[:400]) <= 8
    else:
        assert all(row["score"] < 0 for row in rows[:400])

    code, value, _ = headrace("score", name, pairs, tmp_path / "no", "--option", "temprature=1")
    assert (code, value["error"].split(";")[0]) == (2, "this model has no option 'temprature'")
    shorter = tmp_path / "short"
    assert headrace("score", name, pairs, shorter, "--option", "max_new_tokens=1")[0] == 0
    assert max(len(row[column] or "") for row in pq.read_table(shorter).to_pylist()) < 24

    # Killed after two chunks and run again: the same bytes.
    def killed(number: int, record: Any) -> None:
        if number == 2 and record:
            raise KeyboardInterrupt

    found = resolve(name)
    how: dict[str, Any] = {"chunk_rows": 50, "model_version": found.version_label}
    with pytest.raises(KeyboardInterrupt):
        job.run(found.folder, pairs, tmp_path / "again", on_chunk=killed, **how)
    job.run(found.folder, pairs, tmp_path / "again", **how)
    again = {one: content for one, content in parts(tmp_path / "again").items() if "part" in one}
    assert again == {one: content for one, content in parts(output).items() if "part" in one}

    # The registered model answers by itself, and without torch.
    texts = pacsv.read_csv(pairs)["text"].to_pylist()[:3]
    program = (
        "import json, sys, mlflow; from tasks import tracking; tracking.connect(); "
        f"model = mlflow.pyfunc.load_model('models:/{name}/1'); "
        f"found = model.predict(json.loads(sys.argv[1]))['{column}'].tolist(); "
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
