"""The model card: what a version is, how well it performed, and where it came from.

Follows Mitchell et al., "Model Cards for Model Reporting" (2019), in the parts that numbers can
fill.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.schema import Data, Model, Recipe
from headrace.configs.secrets import mask
from headrace.tasks.data import inputs, windowing
from headrace.tasks.models import pretrained

if TYPE_CHECKING:
    from headrace.tasks.runtime.facts import (
        EvaluatedFacts,
        ExportedFacts,
        IntervalFacts,
        PreparedFacts,
        PromiseFacts,
        StageArtifacts,
        TestedFacts,
        TrainedFacts,
    )

PICTURES = ("confusion", "calibration", "selective")
LABEL_TARGET = 0.95
"""The accuracy that is shown where there is a promise for each label."""
LICENCE = re.compile(r"^license: *(\S+)", re.MULTILINE)
"""License line in the header of a model's README on the Hugging Face Hub."""


def write(folder: Path, recipe: Recipe, stages: StageArtifacts) -> str:
    """Write README.md and its pictures to `folder`; return the text."""
    pictures = []
    for name in PICTURES:
        picture = stages.evaluated.path / f"{name}-light.svg"
        if picture.exists():
            shutil.copy(picture, folder / picture.name)
            pictures.append(f"![{name}]({picture.name})")
    page = text(recipe, stages, pictures)
    (folder / "README.md").write_text(page, encoding="utf-8")
    return page


def text(recipe: Recipe, stages: StageArtifacts, pictures: Sequence[str]) -> str:
    """Return the page as Markdown."""
    prepared, decided = stages.prepared.facts, stages.decided.facts
    parts = [
        f"# {recipe.name}",
        decided["summary"],
        "## Use",
        _use(recipe, prepared),
        "## Quality on test rows",
        _metrics(stages.evaluated.facts, prepared["baseline"]),
        *_probabilities(stages.evaluated.facts),
        *pictures,
        "## Variants",
        _variants(stages.exported.facts),
        "## Decision",
        "\n".join(f"- {reason}" for reason in decided["reasons"]),
        "## Data",
        _data(recipe.data, prepared),
        "## Training",
        _training(recipe.model, stages.trained.facts),
    ]
    return "\n\n".join(parts) + "\n"


def _use(recipe: Recipe, prepared: PreparedFacts) -> str:
    labels = prepared["head"].get("labels", [])
    reads = inputs.resolve(recipe)
    rows = {True: "pairs of texts", False: "texts"}[reads.pair]
    joined = f" (joined from {', '.join(reads.fields)})" if reads.fields else ""
    purpose = f"{recipe.objective} of {rows}{joined} like those it was trained on"
    if labels:
        names = ", ".join(map(str, labels[:30])) + (", …" if len(labels) > 30 else "")
        purpose += f", into {len(labels)} labels: {names}"
    window = windowing.resolve(recipe)
    treatment = f"cut to {recipe.model.max_length} tokens"
    if window.in_windows:
        treatment = f"read in windows of {window.window} tokens with a stride of {window.stride}"
    certainty = "Every text gets a prediction, even if no label fits"
    if recipe.score.abstain_below:
        certainty = f"A label of a probability below {recipe.score.abstain_below:g} is withheld"
    return (
        f"Intended for {purpose}. Each text is {treatment}. Quality was measured only on the test "
        "rows below: measure it again for texts of another kind, language or period. "
        f"{certainty}."
    )


def _metrics(
    evaluated: EvaluatedFacts, baseline: Mapping[str, IntervalFacts | float] | None
) -> str:
    lines = ["| metric | this model | TF-IDF and logistic regression |", "|---|---|---|"]
    for name, value in evaluated["metrics"].items():
        reference = (baseline or {}).get(name)
        lines.append(
            f"| {name} | {_interval(value)} | {_interval(reference) if reference else '–'} |"
        )
    note = f"{evaluated['rows']:,} test rows; brackets are bootstrap intervals."
    return "\n".join(lines) + f"\n\n{note}"


def _probabilities(evaluated: EvaluatedFacts) -> list[str]:
    """Return what the test rows say of probabilities; nothing if they are not calibrated."""
    parts, calibration = [], evaluated.get("calibration")
    if calibration:
        parts.append(
            f"Expected calibration error {_interval(calibration['after'])}, before calibration "
            f"{_interval(calibration['before'])}; perfect probabilities would have "
            f"{calibration['chance']:.4f} by chance."
        )
    lines = [
        f"| {f'{name}: ' if name else ''}{promise['target']:.0%} | {_withheld(promise)} |"
        for name, promises in evaluated.get("promises", {}).items()
        for promise in promises
        if not name or promise["target"] == LABEL_TARGET
    ]
    if lines:
        header = [
            "| accuracy asked | minimum probability | decided | accuracy |",
            "|---|---|---|---|",
        ]
        note = "The probability is chosen on validation rows; shares and accuracies are test rows'."
        parts += ["\n".join([*header, *lines]), note]
    return parts


def _withheld(promise: PromiseFacts) -> str:
    validation, test = promise["validation"], promise["test"]
    if validation is None or test is None:
        return "none reaches it | |"
    return f"{validation['threshold']:g} | {test['share']:.1%} | {_interval_of(test)}"


def _variants(exported: ExportedFacts) -> str:
    lines = ["| variant | tokens/s | agreement with PyTorch | MB | |", "|---|---|---|---|---|"]
    for variant in exported["variants"]:
        if variant["status"] != "kept":
            lines.append(f"| {variant['name']} | | | | refused: {variant['reason']} |")
            continue
        note = "default" if variant["name"] == exported["default"] else ""
        lines.append(
            f"| {variant['name']} | {variant['tokens_per_second']:,.0f} "
            f"| {variant['agreement']:.2%} | {(variant['size_bytes'] or 0) / 1e6:.1f} | {note} |"
        )
    return "\n".join(lines)


def _data(data: Data, prepared: PreparedFacts) -> str:
    rows = prepared["rows"]
    return (
        f"- source: {data.source.kind}\n"
        f"- rows: {rows['train']:,} training, {rows['validation']:,} validation, "
        f"{rows['test']:,} test\n"
        f"- rejected: {sum(prepared['rejected'].values()):,}; "
        f"duplicates removed: {sum(prepared['duplicates'].values()):,}"
    )


def _training(model: Model, trained: TrainedFacts) -> str:
    best = trained["best"]
    return (
        f"- weights: {_weights(model)}\n"
        f"- {trained['steps']} steps, {trained['precision']} on {trained['device']}; "
        f"best validation {best['metric']} {best['value']:.4f} at step {best['step']}"
    )


def _weights(model: Model) -> str:
    """Say where the weights came from and under which license, as far as that is known."""
    source = mask(model.source)
    if source == "scratch":
        return "random initialization, trained only on this data"
    revision = f" at {model.revision}" if model.revision else ""
    place = pretrained.locate(model)
    readme = place / "README.md" if isinstance(place, Path) else None
    match = readme and readme.exists() and LICENCE.search(readme.read_text(encoding="utf-8"))
    return f"{source}{revision}; license: {match[1] if match else 'see the source'}"


def _interval_of(test: TestedFacts) -> str:
    return f"{test['accuracy']:.4f} [{test['low']:.4f}, {test['high']:.4f}]"


def _interval(value: IntervalFacts | float) -> str:
    if isinstance(value, Mapping):
        return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value:.4f}"
