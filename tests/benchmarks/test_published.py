"""Tables as they were published, from `headrace init` to a champion, beside TF-IDF.

Nothing is edited: the recipe is what `init` writes. A set that is not there is left out.
HEADRACE_DATA holds a folder for each: sst2, ag_news, sms_spam and wnut17 as Parquet, and with the
published names of their files

    banking77   train.csv, test.csv                  github.com/PolyAI-LDN/task-specific-datasets
    mrpc        msr_paraphrase_{train,test}.txt      Microsoft Research Paraphrase Corpus
    clothing    Womens Clothing E-Commerce Reviews.csv     Kaggle, by nicapotato
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.benchmarks.machine import DATA, table, write_page

pytestmark = [pytest.mark.bench, pytest.mark.timeout(14_400)]

ABOUT = """`headrace init` and `headrace train`, nothing edited; seed 0. The metric of the test
rows, with 95% intervals. Baseline: TF-IDF with logistic regression, of tags over each word, its
neighbours and its letters. Time: from the files to the registered version.

"""
TRAINED = (0, 3)
"""Exit codes of a finished training: promoted, or registered without."""


@dataclass(frozen=True)
class Published:
    name: str
    train: str
    test: str | None = None
    says: tuple[str, ...] = ()
    """Options of `init` besides the files."""


SETS = [
    *(Published(name, "train.parquet", "test.parquet") for name in ("sst2", "ag_news", "sms_spam")),
    Published("wnut17", "train.parquet", "test.parquet"),
    Published("banking77", "train.csv", "test.csv"),
    Published("mrpc", "msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
    Published(
        "clothing",
        "Womens Clothing E-Commerce Reviews.csv",
        says=(
            "--text", "Title,Review Text", "--label", "Recommended IND", "--feature", "Age=number",
        ),
    ),
]  # fmt: skip


def test_published(tmp_path: Path) -> None:
    lines, losses = [], []
    for published in SETS:
        folder = DATA / published.name
        if not (folder / published.train).exists():
            print(f"{published.name}: not in {DATA}", flush=True)
            continue
        trained = run(published, folder, tmp_path / published.name)
        lines.append(line_of(published, trained))
        print(" | ".join(lines[-1]), flush=True)
        if not trained["promoted"]:
            losses.append(f"{published.name}: {'; '.join(trained['reasons'])}")
    header = [
        "set", "init's choice", "trained on", "metric", "baseline", "shipped variant",
        "gain on the same rows", "decision", "time",
    ]  # fmt: skip
    write_page(
        "published",
        "Tables as they were published",
        "HEADRACE_DATA=folder pytest -m bench -s tests/benchmarks/test_published.py",
        ABOUT + table(header, lines),
    )
    assert not losses


def run(published: Published, folder: Path, workspace: Path) -> dict[str, Any]:
    """Return what `headrace train --json` prints, besides the seconds that both commands took."""
    workspace.mkdir()
    test = ["--test", str(folder / published.test)] if published.test else []
    began = time.perf_counter()
    started = headrace(
        workspace, "init", str(folder / published.train), *test, *published.says,
        "--name", published.name,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    trained = headrace(workspace, "train", f"{published.name}.yaml", "--json")
    assert trained.returncode in TRAINED, trained.stderr
    found: dict[str, Any] = json.loads(trained.stdout)
    return {**found, "seconds": time.perf_counter() - began, "init": started.stdout}


def headrace(workspace: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.flows.cli", *command],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )


def line_of(published: Published, trained: dict[str, Any]) -> list[str]:
    metric = trained["metric"]
    baseline = (trained["baseline"] or {}).get(metric, {}).get("value")
    if published.name == "wnut17":
        baseline = names_by_tfidf(DATA / "wnut17")
    gain = trained["baseline_difference"]
    prepared, *_ = (one["folder"] for one in trained["stages"] if one["stage"] == "prepare")
    rows = json.loads((Path(prepared) / "artifact.json").read_text())["facts"]["rows"]
    return [
        published.name,
        trained["init"].splitlines()[0].rpartition("; ")[2],
        f"{rows['train']:,}",
        metric,
        f"{baseline:.3f}" if baseline else "",
        f"{trained['default_variant']} {interval(trained['metrics'][metric])}",
        interval(gain, "+") if gain else "",
        "promoted" if trained["promoted"] else "refused",
        f"{trained['seconds'] / 60:.0f} min",
    ]


def interval(found: dict[str, float], sign: str = "") -> str:
    low, high = (f"{found[key]:{sign}.3f}" for key in ("low", "high"))
    return f"{found['value']:{sign}.3f} ({low} to {high})"


# --- tags by TF-IDF -------------------------------------------------------------------------------


def names_by_tfidf(folder: Path) -> float:
    """Return the F1 of whole spans of a logistic regression that tags each word by itself."""
    train, test = (pq.read_table(folder / f"{split}.parquet") for split in ("train", "test"))
    model = make_pipeline(
        TfidfVectorizer(analyzer=list, min_df=2), LogisticRegression(C=30, max_iter=300)
    )
    model.fit(words_of(train), [tag for tags in train["tags"].to_pylist() for tag in tags])
    predicted = iter(model.predict(words_of(test)).tolist())
    true, found = set(), set()
    for row, tags in enumerate(test["tags"].to_pylist()):
        true |= {(row, *span) for span in spans(tags)}
        found |= {(row, *span) for span in spans([next(predicted) for _ in tags])}
    return 2 * len(true & found) / max(len(true) + len(found), 1)


def words_of(rows: pa.Table) -> list[list[str]]:
    """Return what describes each word: itself, its neighbours, its shape, its letters."""
    described = []
    for tokens in rows["tokens"].to_pylist():
        padded = ["<s>", *tokens, "</s>"]
        for before, word, after in zip(padded, padded[1:], padded[2:], strict=False):
            lower, shape = word.lower(), re.sub("[a-z]+", "a", re.sub("[A-Z]+", "A", word))
            letters = [f"{n}:{part}" for n in (3, 4) for part in (lower[:n], lower[-n:])]
            near = [f"w:{lower}", f"<:{before.lower()}", f">:{after.lower()}", f"s:{shape}"]
            described.append(near + letters)
    return described


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Return (first word, word after the last, label) of each span of BIO tags."""
    found, start = set(), None
    for place, tag in enumerate([*tags, "O"]):
        if start is not None and tag != f"I-{tags[start][2:]}":
            found.add((start, place, tags[start][2:]))
            start = None
        if tag != "O" and start is None:
            start = place
    return found
