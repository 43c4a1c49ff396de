"""The champion on the candidate's test rows, and the decision that follows.

The champion is run anew, through its own exported model, because its stored numbers are of other
rows. That is fair only while no row of this test set was among its training rows. Splits go by a
hash of the text, so with the same salt a row stays where it was however the table grows: an old
training row never enters the test set. With another salt, or a larger share of test rows, it may,
and the comparison is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from configs.errors import UserError
from configs.schema import Promote, Recipe
from serving import manifest
from tasks import artifact, objectives, testset
from tasks.artifact import Artifact
from tasks.decide import Decision, Measured, SliceGain, decide
from tasks.intervals import Interval, paired_bootstrap, unpaired_detectable
from tasks.model_store import content_id
from tasks.objectives import Array, Metric
from tasks.testset import HeldOut

if TYPE_CHECKING:
    from serving.scorer import Scorer

TIMED_ROWS, WRITERS_ROWS = 200, 32
"""Of models that read, and of those that write."""
MIN_ROUNDS, MAX_ROUNDS = 5, 50
TIMED_TOKENS = 50_000
TIMED_S, ENOUGH_S = 1.0, 30.0
"""Timing goes on for so long, within those rounds; fewer are enough where they take longer."""


class Champion(Protocol):
    """A registered version, as tasks.registry hands it over."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def folder(self) -> Path:
        """Its model folder."""


def compare(
    recipe: Recipe,
    prepared: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    champion: Champion | None,
) -> Artifact:
    """The stage `decide`: its facts are the Decision as a dict. `None`: there is no champion yet.

    Raises UserError for a champion of another kind, or whose training rows may stand in this
    test set.
    """
    if champion is not None:
        check_comparable(recipe, champion)
    return artifact.make(
        "decide",
        key={
            "promote": recipe.promote.model_dump(mode="json"),
            "evaluate": recipe.evaluate.model_dump(mode="json"),
            "objective": recipe.objective,
            "keep": recipe.data.keep,
            "champion": None
            if champion is None
            else {"version": champion.version, "content": content_id(champion.folder)},
        },
        inputs=[prepared, exported, evaluated],
        code=[__name__, *objectives.code(recipe.objective)],
        libraries=["numpy"],
        build=partial(_build, recipe, prepared, exported, evaluated, champion),
    )


def check_comparable(recipe: Recipe, champion: Champion) -> None:
    """Raise UserError unless no row of this recipe's test set can have trained the champion.

    Costs nothing, so that a flow may ask before it trains. The test rows are the high end of the
    hashes: a smaller share of them is part of the champion's own test set, a larger one is not.
    """
    found, splits = manifest.read(champion.folder), recipe.data.splits
    salt = found.training.get("salt", "")
    share = found.training.get("test_share", splits.test)
    who = f"champion {champion.name} version {champion.version}"
    if found.objective != recipe.objective:
        raise UserError(
            f"{who} is a {found.objective} model, this recipe makes a {recipe.objective} one: they "
            "cannot be compared; register under another name"
        )
    if salt != splits.salt:
        raise UserError(
            f"{who} was split with salt {salt!r}, this recipe has {splits.salt!r}: rows it learned "
            f"from may stand in this test set; set data.splits.salt to {salt!r}, or register "
            "under another name"
        )
    if splits.test > share:
        raise UserError(
            f"{who} was tested on a share of {share:g}, this recipe asks for {splits.test:g}: rows "
            f"it learned from would stand in this test set; set data.splits.test to {share:g} or "
            "less, or register under another name"
        )


def _build(
    recipe: Recipe,
    prepared: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    champion: Champion | None,
    folder: Path,
) -> dict[str, Any]:
    from serving.scorer import Scorer

    name, metric = testset.deciding_metric(recipe, prepared.facts["head"])
    size = _default_size(exported.path / "model")
    if champion is None:
        decision = decide(
            recipe.promote,
            metric=name,
            rows=evaluated.facts["rows"],
            candidate=Measured(evaluated.facts["value"], size),
            unpaired_detectable=unpaired_detectable(
                Interval(**evaluated.facts["metrics"][name]), recipe.evaluate.confidence
            ),
            higher_is_better=metric.higher_is_better,
        )
    else:
        rows = testset.read(recipe, prepared)
        theirs = Scorer(champion.folder)
        pair = _statistics(recipe, exported, rows, evaluated, theirs)
        speeds = _speeds(Scorer(exported.path / "model"), theirs, rows)
        sizes = size, _default_size(champion.folder)
        decision = _decide(recipe, rows, pair, speeds, sizes, champion.version)
    artifact.write_json(folder / "decision.json", decision.to_dict())
    return decision.to_dict()


def _default_size(model: Path) -> int:
    found = manifest.read(model)
    return found.variant(found.default).size_bytes


Pair = tuple[Array, Array, dict[str, Any]]
"""The candidate's and the champion's statistics (n, d), and the head they stand in."""


def _statistics(
    recipe: Recipe, exported: Artifact, rows: HeldOut, evaluated: Artifact, theirs: Scorer
) -> Pair:
    """Both models' statistics in a head that has the labels of both.

    So a label that the champion does not know is one it always misses, and a decision of it for
    a label that the candidate does not know is wrong.
    """
    objective = objectives.get(recipe.objective)
    head = manifest.read(exported.path / "model").head
    ours = testset.read_outputs(evaluated.path)
    _, other = testset.answers(objective, theirs, rows.texts)
    others_head = theirs.manifest.head
    align = getattr(objective, "align", None)
    common = head
    if align is not None:
        common = objective.common_head(head, others_head)  # type: ignore[attr-defined]
        ours, other = align(ours, head, common), align(other, others_head, common)
    elif others_head != head:
        raise UserError(
            "the champion's outputs mean something else than this model's; register under "
            "another name"
        )
    return (
        objectives.statistics(objective, rows.targets, ours, common),
        objectives.statistics(objective, rows.targets, other, common),
        common,
    )


def _decide(
    recipe: Recipe,
    rows: HeldOut,
    pair: Pair,
    speeds: tuple[float, float],
    sizes: tuple[int, int],
    version: str,
) -> Decision:
    ours, theirs, head = pair
    name, metric = testset.deciding_metric(recipe, head)
    slice_name, slice_metric = testset.slice_metric(recipe, head)
    how: dict[str, Any] = {
        "resamples": recipe.evaluate.resamples,
        "confidence": recipe.evaluate.confidence,
    }
    gains = [
        SliceGain(
            name=column,
            value=value,
            rows=int(mask.sum()),
            candidate=_value(slice_metric, ours[mask]),
            champion=_value(slice_metric, theirs[mask]),
            difference=paired_bootstrap(ours[mask], theirs[mask], slice_metric, **how),
        )
        for column, value, mask in testset.slices(recipe, rows)
    ]
    return decide(
        in_units(recipe.promote, metric, slice_metric),
        metric=name,
        rows=len(ours),
        candidate=Measured(_value(metric, ours), sizes[0], speeds[0]),
        champion=Measured(_value(metric, theirs), sizes[1], speeds[1]),
        champion_version=version,
        difference=paired_bootstrap(ours, theirs, metric, **how),
        slices=gains,
        slice_metric=slice_name,
        higher_is_better=metric.higher_is_better,
    )


def in_units(rules: Promote, metric: Metric, slice_metric: Metric) -> Promote:
    """The rules with limits in the metrics' own units, not as shares of their scales."""
    slices = rules.slices and rules.slices.model_copy(
        update={"max_drop": rules.slices.max_drop * slice_metric.scale}
    )
    return rules.model_copy(update={"margin": rules.margin * metric.scale, "slices": slices})


def _value(metric: Metric, rows: Array) -> float:
    return float(metric.of(rows.sum(0, dtype=np.float64)))


def _speeds(ours: Scorer, theirs: Scorer, rows: HeldOut) -> tuple[float, float]:
    """Tokens a second of both, from text to outputs, taking turns on the same rows.

    The fastest round of each counts: what else the machine does only ever adds time. Tokens are
    counted by the candidate's tokenizer for both: the same text is the same work.
    """
    n_rows = TIMED_ROWS if not ours.head.TIMED else WRITERS_ROWS
    # Texts may be long: as many as short ones have tokens.
    n_rows = max(1, min(n_rows, int(np.searchsorted(np.cumsum(rows.lengths), TIMED_TOKENS))))
    texts = rows.texts[:n_rows]
    tokens = ours.head.timed_tokens(rows.lengths[:n_rows].tolist())
    times: list[tuple[float, float]] = []
    started = time.perf_counter()
    passed = 0.0
    while not times or (
        passed < (ENOUGH_S if len(times) < MIN_ROUNDS else TIMED_S) and len(times) < MAX_ROUNDS
    ):
        times.append((_timed(ours, texts), _timed(theirs, texts)))
        passed = time.perf_counter() - started
    our_s, their_s = (min(taken) for taken in zip(*times, strict=True))
    return tokens / our_s, tokens / their_s


def _timed(scorer: Scorer, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    scorer.outputs(texts, **scorer.head.TIMED)
    return time.perf_counter() - started
