"""The stage that decides on promotion: it measures the champion on the candidate's test rows.

promotion_rules.judge applies the rules; this stage gathers its numbers.

The champion runs again, through its own exported model, because its stored metrics were computed on
other rows. Rows on which a comparison would be unfair (comparable.py) are left out for both models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headrace.configs.errors import UserError
from headrace.configs.schema import Promote, Recipe
from headrace.serving.arrays import Array
from headrace.serving.engine import manifest
from headrace.serving.errors import ModelFolderError, NewerFormatError
from headrace.tasks import objectives
from headrace.tasks.evaluation import promotion_rules, test_set
from headrace.tasks.evaluation.comparable import Champion, check_comparable, fair_rows
from headrace.tasks.evaluation.decision import Decision, Guard, ModelMeasurement
from headrace.tasks.evaluation.paired_statistics import Answers, PairedStatistics, pair
from headrace.tasks.evaluation.promotion_rules import SliceComparison
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.metrics.bootstrap import Interval, Resampling, unpaired_detectable
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.metrics.paired import Difference, paired_difference
from headrace.tasks.objectives import AnyObjective, selection
from headrace.tasks.registry.model_store import content_id
from headrace.tasks.registry.unreadable import Unreadable
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.json_files import write_json

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.serving.text.inputs import Row
    from headrace.tasks.runtime.facts import (
        Decided,
        DecidedFacts,
        Evaluated,
        Exported,
        Numbers,
        Prepared,
    )

TIMED_ROWS = 200
"""Most rows of a timed round, for encoders."""
GENERATIVE_ROWS = 32
"""Most rows of a timed round, for generative models."""
TIMED_TOKENS = 50_000
"""Most tokens of a round's texts: if they are long, it has fewer rows, but at least one."""
MIN_ROUNDS, MAX_ROUNDS = 5, 50
TIMED_S, MAX_TIMED_S = 1.0, 30.0
"""Time for at least `TIMED_S` (seconds) and `MIN_ROUNDS`, but stop after `MAX_TIMED_S` or
`MAX_ROUNDS`."""


def decide(
    recipe: Recipe,
    prepared: Prepared,
    exported: Exported,
    evaluated: Evaluated,
    champion: Champion | Unreadable | None,
) -> Decided:
    """Run the stage `decide`; its facts are the Decision as a dict.

    `champion`: None if there is none yet; Unreadable if there is one that nothing can be compared
    with. Raises UserError for a champion of another objective, or one that has learned from most of
    this test set.
    """
    if champion is not None and not isinstance(champion, Unreadable):
        check_comparable(recipe, prepared, champion)
    return artifacts.make(
        "decide",
        key={
            "promote": recipe.promote.model_dump(mode="json"),
            "evaluate": recipe.evaluate.model_dump(mode="json"),
            "objective": recipe.objective,
            "keep": recipe.data.keep,
            "champion": _champion_key(champion),
        },
        inputs=[prepared, exported, evaluated],
        code=[__name__, *objectives.code(recipe.objective)],
        libraries=["numpy"],
        build=partial(_build, recipe, prepared, exported, evaluated, champion),
    )


def _champion_key(champion: Champion | Unreadable | None) -> dict[str, str] | None:
    if champion is None:
        return None
    if isinstance(champion, Unreadable):
        return {"version": champion.version, "problem": champion.problem}
    return {"version": champion.version, "content": content_id(champion.folder)}


def _build(
    recipe: Recipe,
    prepared: Prepared,
    exported: Exported,
    evaluated: Evaluated,
    champion: Champion | Unreadable | None,
    folder: Path,
) -> DecidedFacts:
    decision = None
    if champion is not None and not isinstance(champion, Unreadable):
        try:
            decision = _with_champion(recipe, prepared, exported, evaluated, champion)
        except NewerFormatError:
            raise
        except ModelFolderError as problem:
            champion = Unreadable(champion.name, champion.version, str(problem))
    if decision is None:
        assert champion is None or isinstance(champion, Unreadable)
        decision = _without_comparison(recipe, prepared, exported, evaluated, champion)
    write_json(folder / "decision.json", decision.to_dict())
    return decision.to_dict()


def _baseline_gain(evaluated: Evaluated) -> tuple[str, Difference] | None:
    """Return the metric, and the candidate's gain over the TF-IDF baseline; None without one."""
    difference = evaluated.facts["baseline_difference"]
    return difference and (evaluated.facts["baseline_metric"], Difference(**difference))


def _without_comparison(
    recipe: Recipe,
    prepared: Prepared,
    exported: Exported,
    evaluated: Evaluated,
    unreadable: Unreadable | None,
) -> Decision:
    name, metric = selection.deciding_metric(recipe, prepared.facts["head"])
    return promotion_rules.judge(
        recipe.promote,
        metric=name,
        rows=evaluated.facts["rows"],
        candidate=ModelMeasurement(
            evaluated.facts["value"], _default_size(exported.path / "model")
        ),
        champion_version=unreadable.version if unreadable else None,
        unpaired_detectable=unpaired_detectable(
            Interval(**evaluated.facts["metrics"][name]), recipe.evaluate.confidence
        ),
        baseline=_baseline_gain(evaluated),
        higher_is_better=metric.higher_is_better,
        incomparable_reason=unreadable.told if unreadable else None,
    )


def _with_champion(
    recipe: Recipe,
    prepared: Prepared,
    exported: Exported,
    evaluated: Evaluated,
    champion: Champion,
) -> Decision:
    from headrace.serving.engine.scorer import Scorer

    rows = test_set.read(recipe, prepared)
    champion_scorer = Scorer(champion.folder)
    statistics = _statistics(recipe, exported, rows, evaluated, champion_scorer)
    mask = fair_rows(prepared, champion)
    if mask is not None and not mask.all():
        statistics = statistics.of_rows(mask)
        rows = test_set.select(rows, mask)
    speeds = _speeds(Scorer(exported.path / "model"), champion_scorer, rows)
    sizes = _default_size(exported.path / "model"), _default_size(champion.folder)
    baseline = _baseline_gain(evaluated)
    decision = _judge(recipe, rows, statistics, speeds, sizes, champion.version, baseline)
    return decision if mask is None else _with_left_out_guard(decision, mask, champion)


def _with_left_out_guard(
    decision: Decision, mask: NDArray[np.bool_], champion: Champion
) -> Decision:
    """Add a guard that always passes: it says how many test rows were left out as unfair.

    They are excluded because exactly one of the two models was trained on them.
    """
    n_out = len(mask) - int(mask.sum())
    reason = (
        f"{n_out:,} of {len(mask):,} test rows were left out because only one of the two models, "
        f"version {champion.version} and this one, learned from their texts."
    )
    numbers: Numbers = {"left_out": n_out, "test_rows": len(mask)}
    guard = Guard("training_texts", True, reason, numbers, asked=n_out > 0)
    return replace(decision, guards=(*decision.guards, guard))


def _default_size(model: Path) -> int:
    model_manifest = manifest.read(model)
    return model_manifest.variant(model_manifest.default).size_bytes


def _statistics(
    recipe: Recipe, exported: Exported, rows: TestSet, evaluated: Evaluated, champion_scorer: Scorer
) -> PairedStatistics:
    """Return both models' statistics. Raises UserError if their heads cannot be compared."""
    objective = objectives.get(recipe.objective)
    candidate = Answers(
        test_set.read_outputs(evaluated.path), manifest.read(exported.path / "model").head
    )
    _, champion_outputs = test_set.answers(objective, champion_scorer, rows.texts)
    champion = Answers(champion_outputs, champion_scorer.manifest.head)
    statistics = pair(objective, rows, candidate, champion)
    if statistics is None:
        raise UserError(
            "the champion's outputs have a different meaning from this model's, so they cannot be "
            "compared; register under another name"
        )
    return statistics


def _judge(
    recipe: Recipe,
    rows: TestSet,
    statistics: PairedStatistics,
    speeds: tuple[float, float],
    sizes: tuple[int, int],
    champion_version: str,
    baseline: tuple[str, Difference] | None,
) -> Decision:
    candidate, champion, head = statistics
    objective = objectives.get(recipe.objective)
    name, metric = selection.deciding_metric(recipe, head)
    slice_name, slice_metric = selection.slice_metric(recipe, head)
    all_wrong = test_set.wrong(objective, rows, head)
    resampling = test_set.resampling(recipe.evaluate, rows)
    return promotion_rules.judge(
        limits_in_metric_units(recipe.promote, metric, slice_metric),
        metric=name,
        rows=len(candidate),
        candidate=ModelMeasurement(metric.value(candidate), sizes[0], speeds[0]),
        champion=ModelMeasurement(metric.value(champion), sizes[1], speeds[1]),
        champion_version=champion_version,
        difference=paired_difference(candidate, champion, metric, resampling, wrong=all_wrong),
        baseline=baseline,
        slices=_slices(recipe, rows, statistics, all_wrong, slice_metric, resampling),
        slice_metric=slice_name,
        lost_labels=lost_labels(objective, statistics),
        higher_is_better=metric.higher_is_better,
    )


def _slices(
    recipe: Recipe,
    rows: TestSet,
    statistics: PairedStatistics,
    all_wrong: Array | None,
    metric: Metric,
    resampling: Resampling,
) -> list[SliceComparison]:
    """Compare the two models by slice; the intervals of small slices are Bonferroni-corrected."""
    min_rows = recipe.promote.slices.min_rows if recipe.promote.slices else 0
    slices = [
        (column, value, mask, len(np.unique(rows.clusters[mask])) < min_rows)
        for column, value, mask in test_set.slices(recipe, rows)
    ]
    n_small = sum(small for *_, small in slices)
    small_resampling = replace(
        resampling, confidence=1 - (1 - resampling.confidence) / max(n_small, 1)
    )
    comparisons = []
    for column, value, mask, small in slices:
        candidate, champion, _ = statistics.of_rows(mask)
        slice_resampling = (small_resampling if small else resampling).among(mask)
        comparisons.append(
            SliceComparison(
                column=column,
                value=value,
                rows=int(mask.sum()),
                candidate=metric.value(candidate),
                champion=metric.value(champion),
                difference=paired_difference(
                    candidate,
                    champion,
                    metric,
                    slice_resampling,
                    wrong=None if all_wrong is None else all_wrong[mask],
                ),
                small=small,
            )
        )
    return comparisons


def lost_labels(objective: AnyObjective, statistics: PairedStatistics) -> list[str]:
    """Return labels that the champion predicted correctly and the candidate for no row at all."""
    candidate, champion, head = statistics
    candidate_counts = objective.by_label(candidate.sum(axis=0), head)
    champion_counts = objective.by_label(champion.sum(axis=0), head)
    if candidate_counts is None or champion_counts is None:
        return []
    (_, n_predicted, _), (_, _, n_correct) = candidate_counts, champion_counts
    return [head["labels"][i] for i in np.flatnonzero((n_predicted == 0) & (n_correct > 0))]


def limits_in_metric_units(rules: Promote, metric: Metric, slice_metric: Metric) -> Promote:
    """Convert the rules' limits from shares of the metrics' scales to the metrics' own units."""
    slices = rules.slices and rules.slices.model_copy(
        update={"max_drop": rules.slices.max_drop * slice_metric.scale}
    )
    return rules.model_copy(update={"margin": rules.margin * metric.scale, "slices": slices})


def _speeds(
    candidate_scorer: Scorer, champion_scorer: Scorer, rows: TestSet
) -> tuple[float, float]:
    """Return tokens per second of both, from text to outputs, in turns on the same rows.

    The fastest round of each counts: other load on the machine only ever adds time. The candidate's
    tokenizer counts the tokens for both: the same text is the same work.
    """
    n_rows = TIMED_ROWS if not candidate_scorer.head.TIMED else GENERATIVE_ROWS
    # Fewer rows if texts are long, so that a round has at most TIMED_TOKENS tokens.
    n_rows = max(1, min(n_rows, int(np.searchsorted(np.cumsum(rows.lengths), TIMED_TOKENS))))
    texts = rows.texts[:n_rows]
    tokens = candidate_scorer.head.timed_tokens(rows.lengths[:n_rows].tolist())
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    elapsed_s = 0.0
    while not times or (
        elapsed_s < (MAX_TIMED_S if len(times) < MIN_ROUNDS else TIMED_S)
        and len(times) < MAX_ROUNDS
    ):
        times.append(
            (_scoring_seconds(candidate_scorer, texts), _scoring_seconds(champion_scorer, texts))
        )
        elapsed_s = time.perf_counter() - start
    candidate_s, champion_s = (min(seconds) for seconds in zip(*times, strict=True))
    return tokens / candidate_s, tokens / champion_s


def _scoring_seconds(scorer: Scorer, texts: Sequence[Row]) -> float:
    start = time.perf_counter()
    scorer.outputs(texts, **scorer.head.TIMED)
    return time.perf_counter() - start
