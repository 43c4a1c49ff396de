"""The stage that decides on promotion: it measures the champion on the candidate's test rows.

promotion_rules.py has the rules, in `judge`; this stage gathers the numbers for them.

The champion runs again, through its own exported model, because its stored metrics are of other
rows. Rows on which a comparison would be unfair (comparable.py) are left out for both models.
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
from headrace.tasks.evaluation.promotion_rules import SliceComparison
from headrace.tasks.evaluation.test_set import TestSet
from headrace.tasks.metrics.bootstrap import Interval, Resampling, unpaired_detectable
from headrace.tasks.metrics.metric import Metric
from headrace.tasks.metrics.paired import Difference, paired_difference
from headrace.tasks.objectives import AnyObjective, selection
from headrace.tasks.objectives.base import Settings
from headrace.tasks.registry.model_store import content_id
from headrace.tasks.registry.unreadable import Unreadable
from headrace.tasks.runtime import artifacts
from headrace.tasks.runtime.files import write_json

if TYPE_CHECKING:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.runtime.facts import (
        Decided,
        DecidedFacts,
        Evaluated,
        Exported,
        Numbers,
        Prepared,
    )

TIMED_ROWS, GENERATIVE_ROWS = 200, 32
"""Rows that are timed: for encoders, and for generative models."""
MIN_ROUNDS, MAX_ROUNDS = 5, 50
TIMED_TOKENS = 50_000
TIMED_S, ENOUGH_S = 1.0, 30.0
"""Seconds of timing within those rounds; after `ENOUGH_S`, fewer than `MIN_ROUNDS` suffice."""


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
        decision = _without_champion(recipe, prepared, exported, evaluated, champion)
    write_json(folder / "decision.json", decision.to_dict())
    return decision.to_dict()


def _baseline_gain(evaluated: Evaluated) -> tuple[str, Difference] | None:
    """Return the metric, and the candidate's gain over the TF-IDF baseline; None without one."""
    difference = evaluated.facts["baseline_difference"]
    return difference and (evaluated.facts["baseline_metric"], Difference(**difference))


def _without_champion(
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
    their_scorer = Scorer(champion.folder)
    pair = _statistics(recipe, exported, rows, evaluated, their_scorer)
    mask = fair_rows(prepared, champion)
    if mask is not None and not mask.all():
        pair = (pair[0][mask], pair[1][mask], pair[2])
        rows = test_set.select(rows, mask)
    speeds = _speeds(Scorer(exported.path / "model"), their_scorer, rows)
    sizes = _default_size(exported.path / "model"), _default_size(champion.folder)
    baseline = _baseline_gain(evaluated)
    decision = _judge(recipe, rows, pair, speeds, sizes, champion.version, baseline)
    return decision if mask is None else _with_left_out_guard(decision, mask, champion)


def _with_left_out_guard(
    decision: Decision, mask: NDArray[np.bool_], champion: Champion
) -> Decision:
    """Add a guard that says how many test rows were left out as unfair."""
    n_out = len(mask) - int(mask.sum())
    reason = (
        f"{n_out:,} of {len(mask):,} test rows were left out because version "
        f"{champion.version} or this model was trained on their texts."
    )
    numbers: Numbers = {"left_out": n_out, "test_rows": len(mask)}
    guard = Guard("training_texts", True, reason, numbers, asked=n_out > 0)
    return replace(decision, guards=(*decision.guards, guard))


def _default_size(model: Path) -> int:
    model_manifest = manifest.read(model)
    return model_manifest.variant(model_manifest.default).size_bytes


Pair = tuple[Array, Array, Settings]
"""The candidate's and the champion's statistics (n, d), and the head that both refer to."""


def _statistics(
    recipe: Recipe, exported: Exported, rows: TestSet, evaluated: Evaluated, their_scorer: Scorer
) -> Pair:
    """Return both models' statistics under a head that has the labels of both.

    So the champion always misses a label that it does not know, and is wrong if it predicts a label
    that the candidate does not know. Raises UserError if the heads cannot be compared.
    """
    objective = objectives.get(recipe.objective)
    head = manifest.read(exported.path / "model").head
    our_outputs = test_set.read_outputs(evaluated.path)
    _, their_outputs = test_set.answers(objective, their_scorer, rows.texts)
    their_head = their_scorer.manifest.head
    common_head = objective.common_head(head, their_head)
    if common_head is not None:
        our_outputs = objective.align(our_outputs, head, common_head)
        their_outputs = objective.align(their_outputs, their_head, common_head)
    elif their_head != head:
        raise UserError(
            "the champion's outputs have a different meaning from this model's, so they cannot be "
            "compared; register under another name"
        )
    else:
        common_head = head
    return (
        objective.statistics(rows.targets, our_outputs, common_head),
        objective.statistics(rows.targets, their_outputs, common_head),
        common_head,
    )


def _judge(
    recipe: Recipe,
    rows: TestSet,
    pair: Pair,
    speeds: tuple[float, float],
    sizes: tuple[int, int],
    version: str,
    baseline: tuple[str, Difference] | None,
) -> Decision:
    our_statistics, their_statistics, head = pair
    objective = objectives.get(recipe.objective)
    name, metric = selection.deciding_metric(recipe, head)
    slice_name, slice_metric = selection.slice_metric(recipe, head)
    wrong = test_set.wrong(objective, rows, head)
    resampling = test_set.resampling(recipe.evaluate, rows)
    return promotion_rules.judge(
        in_units(recipe.promote, metric, slice_metric),
        metric=name,
        rows=len(our_statistics),
        candidate=ModelMeasurement(metric.value(our_statistics), sizes[0], speeds[0]),
        champion=ModelMeasurement(metric.value(their_statistics), sizes[1], speeds[1]),
        champion_version=version,
        difference=paired_difference(
            our_statistics, their_statistics, metric, resampling, wrong=wrong
        ),
        baseline=baseline,
        slices=_slices(
            recipe, rows, (our_statistics, their_statistics, wrong), slice_metric, resampling
        ),
        slice_metric=slice_name,
        lost_labels=lost_labels(objective, pair),
        higher_is_better=metric.higher_is_better,
    )


def _slices(
    recipe: Recipe,
    rows: TestSet,
    statistics: tuple[Array, Array, Array | None],
    metric: Metric,
    resampling: Resampling,
) -> list[SliceComparison]:
    """Compare the two models slice by slice; small slices are tested as a family (Bonferroni)."""
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
        our_statistics, their_statistics, wrong = (
            None if array is None else array[mask] for array in statistics
        )
        assert our_statistics is not None
        assert their_statistics is not None
        slice_resampling = (small_resampling if small else resampling).among(mask)
        comparisons.append(
            SliceComparison(
                column=column,
                value=value,
                rows=int(mask.sum()),
                candidate=metric.value(our_statistics),
                champion=metric.value(their_statistics),
                difference=paired_difference(
                    our_statistics, their_statistics, metric, slice_resampling, wrong=wrong
                ),
                small=small,
            )
        )
    return comparisons


def lost_labels(objective: AnyObjective, pair: Pair) -> list[str]:
    """Return labels that the champion predicted correctly and the candidate for no row at all."""
    our_statistics, their_statistics, head = pair
    our_counts = objective.by_label(our_statistics.sum(axis=0), head)
    their_counts = objective.by_label(their_statistics.sum(axis=0), head)
    if our_counts is None or their_counts is None:
        return []
    (_, n_predicted, _), (_, _, n_correct) = our_counts, their_counts
    return [head["labels"][i] for i in np.flatnonzero((n_predicted == 0) & (n_correct > 0))]


def in_units(rules: Promote, metric: Metric, slice_metric: Metric) -> Promote:
    """Convert the rules' limits from shares of the metrics' scales to the metrics' own units."""
    slices = rules.slices and rules.slices.model_copy(
        update={"max_drop": rules.slices.max_drop * slice_metric.scale}
    )
    return rules.model_copy(update={"margin": rules.margin * metric.scale, "slices": slices})


def _speeds(our_scorer: Scorer, their_scorer: Scorer, rows: TestSet) -> tuple[float, float]:
    """Return tokens per second of both, from text to outputs, in turns on the same rows.

    The fastest round of each counts: other load on the machine only ever adds time. The candidate's
    tokenizer counts the tokens for both: the same text is the same work.
    """
    n_rows = TIMED_ROWS if not our_scorer.head.TIMED else GENERATIVE_ROWS
    # Fewer rows if texts are long, so that a round has at most TIMED_TOKENS tokens.
    n_rows = max(1, min(n_rows, int(np.searchsorted(np.cumsum(rows.lengths), TIMED_TOKENS))))
    texts = rows.texts[:n_rows]
    tokens = our_scorer.head.timed_tokens(rows.lengths[:n_rows].tolist())
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    elapsed_s = 0.0
    while not times or (
        elapsed_s < (ENOUGH_S if len(times) < MIN_ROUNDS else TIMED_S) and len(times) < MAX_ROUNDS
    ):
        times.append((_scoring_seconds(our_scorer, texts), _scoring_seconds(their_scorer, texts)))
        elapsed_s = time.perf_counter() - start
    our_s, their_s = (min(seconds) for seconds in zip(*times, strict=True))
    return tokens / our_s, tokens / their_s


def _scoring_seconds(scorer: Scorer, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    scorer.outputs(texts, **scorer.head.TIMED)
    return time.perf_counter() - start
