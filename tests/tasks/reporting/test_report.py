"""The report of a run: its numbers, and nothing of the data as markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.configs.schema import Promote, Recipe
from headrace.tasks.evaluation import decide as stage
from headrace.tasks.evaluation import evaluate, promotion_rules, test_set
from headrace.tasks.evaluation.promotion_rules import (
    ModelMeasurement,
    SliceComparison,
)
from headrace.tasks.metrics import selective
from headrace.tasks.metrics.paired import Difference
from headrace.tasks.reporting.report import recipe_text, render, report, slice_scale
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.artifacts import Artifact
from headrace.tasks.runtime.facts import StageArtifacts
from headrace.tasks.runtime.json_files import write_json
from tests.toy import tiny_recipe

EVIL = '<script>alert("x")</script>'
HEAD = {"labels": ["ham", EVIL]}


class Page(HTMLParser):
    """Tags with their attributes, and the words that a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] != "style":
            self.words += f" {data}"

    def __contains__(self, words: str) -> bool:
        return words in " ".join(self.words.split())


def made(stage: str, facts: Any, **files: Any) -> Any:
    def build(folder: Path) -> Any:
        for name, content in files.items():
            if name == "events":
                lines = [json.dumps(line) + "\n" for line in content]
                (folder / "events.jsonl").write_text("".join(lines))
            else:
                write_json(folder / f"{name}.json", content)
        return facts

    return artifacts.make(stage, key={"facts": facts, "files": files}, build=build)


@pytest.fixture
def stages(table: Path) -> StageArtifacts:
    """A run as its stages leave it, told by hand: 200 test rows, half of them labelled `EVIL`."""
    targets = [0, 1] * 100
    outputs = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    outputs[np.arange(200), targets] += 1.5
    rows = test_set.TestSet(
        rows=list(range(200)),
        texts=[f"text {i} {EVIL}" for i in range(200)],
        targets=targets,
        names=[HEAD["labels"][target] for target in targets],
        lengths=np.arange(200) % 40 + 2,
        extra_columns={},
        clusters=np.arange(200),
    )
    baseline = {"accuracy": {"value": 0.61, "low": 0.54, "high": 0.68}}
    prepared = made(
        "prepare",
        {
            "rows": {"train": 700, "validation": 100, "test": 200},
            "rejected": {"null_text": 2, "too_long": 1},
            "duplicates": {"exact": 4, "near": 5},
            "head": HEAD,
            "baseline": baseline,
        },
        profile={
            "label_shares": {EVIL: 0.6, "ham": 0.4},
            "length_histogram": {"edges": [0, 8, 16, 32], "counts": [10, 500, 190]},
        },
    )
    measured, sections = evaluate.measure(
        tiny_recipe(table), prepared, {**HEAD, "temperature": 1.6}, rows, outputs
    )
    found: dict[str, Any] = {**measured, **sections}
    curve = selective.curve(np.repeat([0.9, 0.6], 100), np.repeat([1, 1, 1, 0], 50))
    found["selective"] = {"": selective.measured(curve, curve)}
    found["baseline_difference"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    found["variant"] = "int8"
    found["worst"] = [
        {"row": 7, "target": EVIL, "decision": "ham", "probability": 0.97, "text": rows.texts[7]}
    ]
    lost = SliceComparison("label", EVIL, 100, 0.7, 0.72, Difference(-0.02, -0.1, 0.06, 0.04, 0.11))
    decision = promotion_rules.judge(
        Promote(max_latency_ratio=2),
        metric="accuracy",
        rows=200,
        candidate=ModelMeasurement(found["metrics"]["accuracy"]["value"], 23_100_000, 30_000.0),
        champion=ModelMeasurement(0.75, 23_000_000, 29_000.0),
        champion_version="3",
        difference=Difference(0.08, 0.03, 0.13, 0.025, 0.07),
        slices=[lost],
    )
    kept = {"status": "kept", "reason": None, "size_bytes": 23_100_000}
    return StageArtifacts(
        prepared=prepared,
        trained=made(
            "train",
            {
                "best": {"step": 20, "metric": "accuracy", "value": 0.81},
                "steps": 40,
                "epochs": 2.0,
                "precision": "bf16",
                "device": "cpu",
                "batch": {"per_device": 8, "accumulation": 2},
                "tokens_per_second": 3471,
                "retries": [],
            },
            events=[
                {"step": 10, "epoch": 0.5, "loss": 0.7},
                {"step": 20, "epoch": 1.0, "validation": {"loss": 0.5, "accuracy": 0.81}},
                {"step": 30, "epoch": 1.5, "loss": 0.4},
            ],
        ),
        exported=made(
            "export",
            {
                "default": "int8",
                "device": "cpu",
                "torch": {"tokens_per_second": 5000.0, "metric": 0.81},
                "variants": [
                    {**kept, "name": "int8", "tokens_per_second": 30_000.0, "agreement": 0.99},
                    {"name": "fused", "status": "refused", "reason": "agreement is 0.91"},
                ],
            },
            attention={
                "looking": ["a", EVIL],
                "looked_at": ["a", "", "\n"],
                "shares": np.full((1, 2, 2, 3), 1 / 3).tolist(),
            },
        ),
        evaluated=made("evaluate", {}, metrics=found),
        decided=made("decide", decision.to_dict()),
    )


def test_every_section_shows_its_numbers(stages: StageArtifacts, recipe: Recipe) -> None:
    page = Page(render(recipe, stages))
    for words in (
        "Promoted over version 3",
        "champion, version 3 0.750",
        "TF-IDF baseline 0.610 0.540 to 0.680",
        "Gain in accuracy: +0.0800 (CI +0.0300 to +0.1300); required: CI above 0;",
        "With these 200 test rows and these two models, a true gain of 0.0700 is detected",
        "expected calibration error 0.",
        "before calibration 0.",
        "90% 0.605 50.0% 1.000 0.963 1.000",
        "99% none",
        "int8 30,000 6.0 23.1 MB 0.9900",
        "refused : agreement is 0.91",
        "step 20 accuracy 0.8100",
        "rejected 3 null_text 2, too_long 1",
        "duplicates removed 9 exact 4, near 5",
        "ham 40.0%",
        stages.exported.digest,
        "hidden_size: 32",
    ):
        assert words in page, words


def test_nothing_that_comes_from_data_becomes_markup(
    stages: StageArtifacts, recipe: Recipe
) -> None:
    page = Page(render(recipe, stages))
    assert "script" not in {tag for tag, _ in page.tags}
    assert f"{EVIL} , predicted as ham" in page
    assert f"text 7 {EVIL}" in page
    assert f"label={EVIL} (100 rows)" in page


def test_the_page_asks_nothing_of_a_network(stages: StageArtifacts, recipe: Recipe) -> None:
    text = render(recipe, stages)
    page = Page(text)
    for tag, attributes in page.tags:
        for name in {"src", "srcset", "href"} & set(attributes):
            assert str(attributes[name]).startswith("data:image/svg+xml;"), tag
    assert not re.search(r"url\(|@import", text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object"})
    pictures_in_it = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures_in_it) == 6
    assert all(attributes["alt"] for attributes in pictures_in_it)


def test_a_first_model_without_baseline_reads_as_well(
    stages: StageArtifacts, recipe: Recipe
) -> None:
    first = promotion_rules.judge(
        Promote(min_value=0.99),
        metric="accuracy",
        rows=200,
        candidate=ModelMeasurement(0.84, 23_100_000),
    )
    facts = {**stages.prepared.facts, "baseline": None}
    stages = replace(
        stages,
        prepared=replace(stages.prepared, facts=facts),
        decided=made("decide", first.to_dict()),
    )
    page = Page(render(recipe, stages))
    assert "Refused. Test accuracy must be at least 0.99 (promote.min_value); it is 0.8400." in page
    assert "TF-IDF" not in page
    assert "champion, version" not in page


def test_the_recipe_is_shown_without_its_password(recipe: Recipe) -> None:
    url = "postgresql://reader:s3cret@db/rows"
    source = {"kind": "sql", "url": url, "query": "SELECT 1"}
    changed = Recipe.model_validate({**recipe.model_dump(mode="json"), "data": {"source": source}})
    text = recipe_text(changed)
    assert "reader:***@db" in text
    assert "s3cret" not in text
    assert "max_grad_norm" not in text  # a default


@pytest.mark.parametrize(
    ("highs", "to"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([0.4, 0.98], 1.0),
        ([12.0, 34.7], 40.0),
        ([100.00000000000003], 100.0),
    ],
)
def test_slices_have_a_scale_that_holds_them(highs: list[float], to: float) -> None:
    assert slice_scale([{"high": one} for one in highs]) == {"low": 0.0, "high": to}


def test_a_real_run_is_reported_and_then_found(
    recipe: Recipe, prepared: Artifact, trained: Artifact, exported: Artifact, evaluated: Artifact
) -> None:
    decided = stage.decide(recipe, prepared, exported, evaluated, None)
    stages = StageArtifacts(prepared, trained, exported, evaluated, decided)
    first = report(recipe, stages)
    text = (first.path / "report.html").read_text(encoding="utf-8")
    assert decided.facts["summary"].removeprefix("Promoted") in Page(text)
    assert report(recipe, stages).cached
