"""The report page of a run: its data, its training, its quality, and the decision.

The page is self-contained: style and plots are embedded, and it loads nothing from a network. It is
readable on a phone, on a wide screen and on paper, light or dark. Its content comes from the
stages' own files; templates/report.html is the layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import yaml

from headrace.configs.schema import Recipe
from headrace.configs.secrets import masked
from headrace.tasks.reporting import html, plots
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.artifacts import AnyArtifact
from headrace.tasks.runtime.facts import StageArtifacts  # it is called: part of the digest
from headrace.tasks.runtime.text import duration

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import (
        DecidedFacts,
        IntervalFacts,
        MetricsFile,
        Prepared,
        Reported,
        ReportedFacts,
        SliceFacts,
        TrainingEvent,
    )

TEMPLATE = "report.html"
MAX_LABELS = 40
"""Label shares shown; the others are only counted."""


class Standing(TypedDict):
    """A model's value of the deciding metric, with its interval if it has one."""

    who: str
    value: float
    low: NotRequired[float]
    high: NotRequired[float]


def report(recipe: Recipe, stages: StageArtifacts) -> Reported:
    """Write a folder with `report.html`. Each section uses the files and facts of its stage."""
    return artifacts.make(
        "report",
        key={
            "recipe": masked(recipe.model_dump(mode="json")),
            "templates": html.digests(TEMPLATE),
        },
        inputs=stages.in_order(),
        code=[__name__],
        libraries=["jinja2", "matplotlib"],
        build=partial(_build, recipe, stages),
    )


def _build(recipe: Recipe, stages: StageArtifacts, folder: Path) -> ReportedFacts:
    page = render(recipe, stages)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return {"bytes": len(page.encode())}


def render(recipe: Recipe, stages: StageArtifacts) -> str:
    evaluation: MetricsFile = _json(stages.evaluated.path / "metrics.json")
    decision = stages.decided.facts
    return html.render(
        TEMPLATE,
        {"duration": duration, "size": size},
        recipe=recipe,
        recipe_text=recipe_text(recipe),
        stages=stages.in_order(),
        libraries=_libraries(stages.in_order()),
        data=_data(stages.prepared),
        training=stages.trained.facts,
        export=stages.exported.facts,
        evaluation=evaluation,
        decision=decision,
        slice_scale=slice_scale(evaluation["slices"]),
        standings=standings(evaluation, stages.prepared.facts["baseline"], decision),
        pictures=_pictures(stages, evaluation),
        evaluated=stages.evaluated.path,
    )


# --- contents of the sections ---------------------------------------------------------------------


def standings(
    evaluation: MetricsFile,
    baseline: Mapping[str, IntervalFacts | float] | None,
    decision: DecidedFacts,
) -> dict[str, object]:
    """Return the models' values of the deciding metric, and a scale that spans all of them."""
    name = evaluation["metric"]
    rows: list[Standing] = [{"who": "this model", **evaluation["metrics"][name]}]
    if decision["champion"]:
        champion = f"champion, version {decision['champion_version']}"
        rows.append({"who": champion, "value": decision["champion"]["value"]})
    reference = (baseline or {}).get(name)
    if isinstance(reference, dict):  # a metric that ranks has none
        rows.append({"who": "TF-IDF baseline", **reference})
    if worth := evaluation.get("features_worth"):
        rows.append({"who": "without features", **worth["without"]})
    low = min(row.get("low", row["value"]) for row in rows)
    high = max(row.get("high", row["value"]) for row in rows)
    room = 0.08 * (high - low) or 0.01
    return {"rows": rows, "low": low - room, "high": high + room}


def slice_scale(slices: Sequence[SliceFacts]) -> dict[str, float]:
    """Return a scale that spans all slices: 0 to 1 for a share, else 0 to a round number."""
    highest = max((row["high"] for row in slices), default=1.0) or 1.0
    step = 10.0 ** math.floor(math.log10(highest)) if highest > 1 else 1.0
    return {"low": 0.0, "high": math.ceil(round(highest / step, 6)) * step}


def _data(prepared: Prepared) -> dict[str, object]:
    profile = _json(prepared.path / "profile.json")
    shares = sorted(profile.get("label_shares", {}).items(), key=lambda item: -item[1])
    return {
        **prepared.facts,
        "profile": profile,
        "shares": shares[:MAX_LABELS],
        "shares_left_out": max(0, len(shares) - MAX_LABELS),
        "lengths": _lengths(profile.get("length_histogram")),
    }


def _lengths(histogram: Mapping[str, Sequence[int]] | None) -> list[dict[str, float]]:
    """Return a bar for each bin: height from 0 to 1, its rows, and the fewest tokens in it."""
    if not histogram or not any(histogram["counts"]):
        return []
    first = next(i for i, count in enumerate(histogram["counts"]) if count)
    bins = list(zip(histogram["counts"], histogram["edges"], strict=False))[first:]
    highest = max(count for count, _ in bins)
    return [{"height": count / highest, "rows": count, "from": edge} for count, edge in bins]


def _pictures(stages: StageArtifacts, evaluation: MetricsFile) -> dict[str, dict[str, str]]:
    """Return the plots: name to {look: data URI}."""
    pictures = plots.of_evaluation(evaluation)
    events = _events(stages.trained.path / "events.jsonl")
    if events:
        best_by = stages.trained.facts["best"]["metric"] or evaluation["metric"]
        pictures["training"] = plots.training_curve(events, best_by.removeprefix("eval_"))
    if attention := _json(stages.exported.path / "attention.json"):
        shares = np.asarray(attention["shares"])
        last_layer = shares[-1].mean(axis=0)
        pictures["attention"] = plots.attention_map(
            last_layer, attention["looking"], attention["looked_at"]
        )
        pictures["heads"] = plots.attention_heads(shares)
    return {
        name: {look: html.data_uri(svg) for look, svg in picture.items()}
        for name, picture in pictures.items()
    }


def _events(file: Path) -> list[TrainingEvent]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _libraries(stages: Iterable[AnyArtifact]) -> dict[str, str]:
    """Return name and version of every library that an artifact depends on."""
    libraries: dict[str, str] = {}
    for artifact in stages:
        libraries |= _json(artifact.path / artifacts.RECORD)["libraries"]
    return dict(sorted(libraries.items()))


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe's settings that are not defaults, as YAML, with secrets masked."""
    settings = masked(recipe.model_dump(mode="json", exclude_defaults=True))
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=88)


# --- helpers --------------------------------------------------------------------------------------


def _json(file: Path) -> Any:
    return json.loads(file.read_bytes())


def size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
