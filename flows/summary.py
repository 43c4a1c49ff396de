"""Summary of a training run: lines for people and one object for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.configs.schema import Recipe
from headrace.tasks import objectives, preflight
from headrace.tasks.evaluation import features_worth
from headrace.tasks.registry.register import Overtaken, Registered
from headrace.tasks.runtime.artifacts import AnyArtifact
from headrace.tasks.runtime.text import duration
from headrace.tasks.training.train import size_of_step

if TYPE_CHECKING:
    from headrace.tasks.evaluation.differences import Comparison
    from headrace.tasks.runtime.facts import (
        CalibrationFacts,
        Decided,
        DifferenceFacts,
        Evaluated,
        Exported,
        FeaturesWorthFacts,
        IntervalFacts,
        Prepared,
        PromiseFacts,
        Reported,
        StageArtifacts,
        Trained,
        VariantFacts,
    )
    from headrace.tasks.scoring.promise import Promise

StageResult = AnyArtifact | Registered | Overtaken


@dataclass(frozen=True)
class Outcome:
    """Result of a training run, as `headrace train --json` prints it."""

    name: str
    version: str
    model_uri: str
    promoted: bool
    had_champion: bool
    reasons: list[str]
    metric: str
    metrics: dict[str, IntervalFacts]
    """Value, low and high of each test metric."""
    baseline: Mapping[str, IntervalFacts | float] | None
    """TF-IDF with logistic regression on the same split."""
    baseline_difference: DifferenceFacts | None
    """Model minus baseline on the same rows: value, low, high."""
    features_worth: FeaturesWorthFacts | None
    """Metric of the recipe trained without features, and the gain over it."""
    calibration: CalibrationFacts | None
    """Expected calibration error, before and after the probabilities were calibrated."""
    promises: dict[str, list[PromiseFacts]]
    """By label, or under "": accuracies, and the probabilities below which labels are withheld to
    keep them."""
    smallest_detectable: float | None
    """Smallest difference to the champion that these test rows could have shown."""
    variants: list[VariantFacts]
    default_variant: str
    report: str
    run_id: str
    stages: list[dict[str, object]]


def outcome(
    recipe: Recipe, stages: StageArtifacts, reported: Reported, registered: Registered
) -> Outcome:
    decision, evaluation = stages.decided.facts, stages.evaluated.facts
    return Outcome(
        name=recipe.name,
        version=registered.version,
        model_uri=registered.model_uri,
        promoted=decision["promote"],
        had_champion=decision["champion_version"] is not None,
        reasons=decision["reasons"],
        metric=evaluation["metric"],
        metrics=evaluation["metrics"],
        baseline=stages.prepared.facts["baseline"],
        baseline_difference=evaluation["baseline_difference"],
        features_worth=evaluation.get("features_worth"),
        calibration=evaluation.get("calibration"),
        promises=evaluation.get("promises", {}),
        smallest_detectable=decision["smallest_detectable"],
        variants=stages.exported.facts["variants"],
        default_variant=stages.exported.facts["default"],
        report=str(reported.path / "report.html"),
        run_id=registered.run_id,
        stages=[
            {
                "stage": artifact.stage,
                "digest": artifact.digest,
                "cached": artifact.cached,
                "seconds": artifact.seconds,
                "folder": str(artifact.path),
            }
            for artifact in [*stages.in_order(), reported]
        ]
        + [{"stage": "register", "cached": registered.cached}],
    )


# --- one line per stage ---------------------------------------------------------------------------


def line(stage: str, result: StageResult) -> str:
    """Format `train     1 min 23 s   validation accuracy 0.745 at step 294 ...`, or `cached`."""
    time_text = "cached" if result.cached else duration(result.seconds)
    return f"{stage:<9} {time_text:>9}   {LINES[stage](result)}"


def _prepared(artifact: Prepared) -> str:
    rows, facts = artifact.facts["rows"], artifact.facts
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in facts["rejected"].items())
    duplicates = sum(facts["duplicates"].values())
    return (
        f"{rows['train']:,} training, {rows['validation']:,} validation and "
        f"{rows['test']:,} test rows; {duplicates:,} duplicates removed"
        + (f"; rejected: {rejected}" if rejected else "")
    )


def _trained(artifact: Trained) -> str:
    facts, best = artifact.facts, artifact.facts["best"]
    return (
        f"validation {best['metric']} {best['value']:.3f} at step {best['step']} of "
        f"{facts['steps']}, {facts['precision']} on {facts['device']}, "
        f"{facts['tokens_per_second']:,.0f} tokens/s"
    )


def _exported(artifact: Exported) -> str:
    variants = [
        f"{v['name']} {v['tokens_per_second']:,.0f} tokens/s"
        if v["status"] == "kept"
        else f"{v['name']} refused"
        for v in artifact.facts["variants"]
    ]
    return f"{', '.join(variants)}; default {artifact.facts['default']}"


def _evaluated(artifact: Evaluated) -> str:
    facts = artifact.facts
    return f"test {facts['metric']} {interval(facts)}"


def _decided(artifact: Decided) -> str:
    return artifact.facts["summary"]


def _reported(artifact: Reported) -> str:
    return str(artifact.path / "report.html")


def _registered(registration: Registered | Overtaken) -> str:
    if isinstance(registration, Overtaken):
        champion = f"version {registration.champion}" if registration.champion else "gone"
        return f"the champion of {registration.name} is now {champion}; deciding again"
    return f"{registration.name} version {registration.version}"


LINES: Mapping[str, Callable[[Any], str]] = {
    "prepare": _prepared,
    "train": _trained,
    "export": _exported,
    "evaluate": _evaluated,
    "decide": _decided,
    "report": _reported,
    "register": _registered,
}


FEW_STEPS = 100


def of_check(recipe: Recipe, prepared: Prepared) -> list[str]:
    """Format what `headrace check` adds: the baseline to beat, and the number of training steps."""
    lines = []
    baseline = prepared.facts["baseline"] or {}
    for name, estimate in baseline.items():
        if isinstance(estimate, dict):
            lines.append(f"  TF-IDF baseline {name} {interval(estimate)}")
    train = recipe.train
    size, unit = size_of_step(recipe)
    steps = math.ceil(_n_trained_on(recipe, prepared) / size) * train.epochs
    steps = min(round(steps), train.max_steps or sys.maxsize)
    lines.append(f"  training will take about {steps:,} steps of {size:,} {unit}")
    if features_worth.recipe_without(recipe):
        lines.append(
            "  and as many without the features, to report what they are worth "
            "(evaluate.without_features)"
        )
    if steps < FEW_STEPS:
        lines.append(
            "  warning: very few steps; add rows or epochs "
            f"(train.epochs is {train.epochs:g}), or reduce the batch size"
        )
    if advice := preflight.advice(recipe, prepared):
        lines.append(f"  warning: {advice}")
    return lines


def _n_trained_on(recipe: Recipe, prepared: Prepared) -> int:
    """Rows per epoch, or tokens if the recipe counts steps in tokens (`train.batch_tokens`)."""
    n_tokens = int(json.loads((prepared.path / "profile.json").read_bytes())["tokens"])
    if recipe.train.batch_tokens is not None:
        return n_tokens
    if objectives.get(recipe.objective).WHOLE_TEXTS:  # rows are blocks of tokens
        return math.ceil(n_tokens / recipe.model.max_length)
    return int(prepared.facts["rows"]["train"])


def of_promise(promise: Promise) -> str:
    """Format what `headrace report --target-accuracy` prints."""
    head = f"accuracy {promise.target_accuracy:g}, on {promise.rows:,} held-out rows"
    return "\n".join([head, *(f"  {line}" for line in promise.lines())])


def decision_markdown(outcome: Outcome) -> str:
    reasons = "\n".join(f"- {reason}" for reason in outcome.reasons)
    return f"**{outcome.name} version {outcome.version}: {verdict(outcome)}**\n\n{reasons}\n"


def verdict(outcome: Outcome) -> str:
    if outcome.promoted:
        return "promoted to champion"
    return f"refused; {'the champion stays' if outcome.had_champion else 'there is no champion'}"


def interval(estimate: IntervalFacts) -> str:
    """Format `0.745 (0.716 to 0.773)`."""
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def winner(gain: IntervalFacts) -> str:
    """Say which is better, the model or a bag of words; loudly if it is the bag of words."""
    if gain["high"] < 0:
        return "TF-IDF WINS: the baseline is better on these rows"
    if gain["low"] > 0:
        return "the model is better"
    return "no significant difference"


def of_features(worth: FeaturesWorthFacts) -> str:
    """Say whether features help, and what the same recipe reaches without them."""
    gain = worth["gain"]
    verdict = (
        "they hurt" if gain["high"] < 0 else "they help" if gain["low"] > 0 else "no clear gain"
    )
    return f"{verdict}; without them {interval(worth['without'])}"


def text(outcome: Outcome) -> str:
    """Format the result of a run, on one screen."""
    estimate = outcome.metrics[outcome.metric]
    lines = [
        f"{outcome.name} version {outcome.version}",
        f"  {outcome.metric:<10} {interval(estimate)}",
    ]
    baseline = (outcome.baseline or {}).get(outcome.metric)
    if isinstance(baseline, dict):
        lines.append(f"  {'TF-IDF':<10} {interval(baseline)}")
    if outcome.baseline_difference:
        gain = outcome.baseline_difference
        lines.append(f"  {'gain':<10} {interval(gain)}: {winner(gain)}")
    if outcome.features_worth:
        worth = outcome.features_worth
        lines.append(f"  {'features':<10} {interval(worth['gain'])}: {of_features(worth)}")
    if outcome.calibration:
        before, after = outcome.calibration["before"], outcome.calibration["after"]
        lines.append(
            f"  calibration error {interval(after)}, before calibration {interval(before)}"
        )
    lines += [
        f"  {promise['target']:.0%} right from a probability of "
        f"{promise['test']['threshold']:g}: {promise['test']['share']:.0%} of the test rows, of "
        f"which {promise['test']['accuracy']:.1%} are right"
        for promise in outcome.promises.get("", [])
        if promise["test"]
    ]
    for variant in outcome.variants:
        marker = "  ← default" if variant["name"] == outcome.default_variant else ""
        if variant["status"] == "kept":
            note = (
                f"{variant['tokens_per_second']:>8,.0f} tokens/s, agrees with PyTorch on "
                f"{variant['agreement']:.1%} of {variant.get('agreement_of', 'rows')}"
            )
        else:
            note = f"refused: {variant['reason']}"
        lines.append(f"  {variant['name']:<10} {note}{marker}")
    lines.append(f"  {verdict(outcome)}")
    lines += [f"    {reason}" for reason in outcome.reasons]
    lines.append(f"  report     {outcome.report}")
    return "\n".join(lines)


SHOWN_CHANGES = 5


def of_comparison(found: Comparison) -> str:
    """Format where two models differ, and who is right, on one screen."""
    share = found.differ / max(found.compared, 1)
    lines = [
        f"{found.a} and {found.b} on {found.rows:,} rows",
        f"  differ     {found.differ:,} of {found.compared:,} rows ({share:.1%})",
    ]
    for change in found.to_json()["changes"][:SHOWN_CHANGES]:
        lines.append(f"  {'':<10} {change['count']:>6,}  {change['a']} → {change['b']}")
    if found.right:
        total = sum(found.right.values())
        counts = {name: found.right.get(name, 0) for name in ("both", "a", "b", "neither")}
        for title, side, name in (("right", "a", found.a), ("", "b", found.b)):
            n_right = counts["both"] + counts[side]
            lines.append(
                f"  {title:<10} {name}: {n_right:,} of {total:,} ({n_right / total:.1%}), "
                f"alone on {counts[side]:,}"
            )
        if found.p_value is not None:
            lines.append(f"  {'':<10} sign test: p = {found.p_value:.2g}")
    return "\n".join([*lines, f"  table      {found.differences}", f"  page       {found.page}"])
