"""The champion on the candidate's test rows, and the decision that follows.

The champion is run anew, through its own exported model, because its stored numbers are of other
rows. That is fair only on rows that it has not learned from. Splits go by a hash of the text, so
with the same salt a row stays where it was however the table grows, and an old training row never
enters the test set. With another salt, a larger share or a table of its own it may: the hashes that
a model carries of its training texts say which rows those are. They are left out for both models,
and where they are most of the test set the comparison is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import UserError
from configs.schema import Promote, Recipe
from serving import manifest
from serving.errors import ModelFolderError, NewerFormatError
from tasks import artifact, objectives, testset, training_texts
from tasks.artifact import Artifact
from tasks.decide import Decision, Guard, Measured, SliceGain, decide
from tasks.incumbent import Unreadable
from tasks.intervals import Interval, paired_bootstrap, unpaired_detectable
from tasks.model_store import content_id
from tasks.objectives import Array, Metric
from tasks.testset import HeldOut

if TYPE_CHECKING:
    from serving.scorer import Scorer

MIN_FAIR = 0.5
"""Share of the test rows that must be left; less is another test set than the recipe's."""
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
    champion: Champion | Unreadable | None,
) -> Artifact:
    """The stage `decide`: its facts are the Decision as a dict. `None`: there is no champion yet;
    Unreadable: there is, and nothing can be compared with it.

    Raises UserError for a champion of another kind, or that has learned from most of this test set.
    """
    if champion is not None and not isinstance(champion, Unreadable):
        check_comparable(recipe, prepared, champion)
    return artifact.make(
        "decide",
        key={
            "promote": recipe.promote.model_dump(mode="json"),
            "evaluate": recipe.evaluate.model_dump(mode="json"),
            "objective": recipe.objective,
            "keep": recipe.data.keep,
            "champion": _key_of(champion),
        },
        inputs=[prepared, exported, evaluated],
        code=[__name__, *objectives.code(recipe.objective)],
        libraries=["numpy"],
        build=partial(_build, recipe, prepared, exported, evaluated, champion),
    )


def _key_of(champion: Champion | Unreadable | None) -> dict[str, str] | None:
    if champion is None:
        return None
    if isinstance(champion, Unreadable):
        return {"version": champion.version, "problem": champion.problem}
    return {"version": champion.version, "content": content_id(champion.folder)}


def check_comparable(recipe: Recipe, prepared: Artifact, champion: Champion) -> None:
    """Raise UserError unless this recipe's model can be compared with the champion, on test rows
    enough that are news to both.

    Costs little, so that a flow may ask before it trains.
    """
    found = manifest.read(champion.folder)
    if found.objective != recipe.objective:
        raise UserError(
            f"{_who(champion)} is a {found.objective} model, this recipe makes a "
            f"{recipe.objective} one: they cannot be compared; register under another name"
        )
    mask = fair_rows(prepared, champion)
    if mask is None:
        _check_splits(recipe, found, champion)
    elif mask.sum() < MIN_FAIR * len(mask):
        n_unfair = len(mask) - int(mask.sum())
        raise UserError(
            f"{n_unfair:,} of {len(mask):,} test rows are texts that {_who(champion)} has learned "
            f"from and this recipe's model has not, or the reverse: what is left is no fair test "
            f"of both; {_remedy(recipe, found)}give test rows that are news to both "
            "(data.source.test), or register under another name"
        )


def fair_rows(prepared: Artifact, champion: Champion) -> NDArray[np.bool_] | None:
    """(n,): the test rows on which both models can be compared; None where the champion does not
    say what it has learned from."""
    ours, theirs = (training_texts.read(one) for one in (prepared.path, champion.folder))
    if ours is None or theirs is None:
        return None
    return training_texts.fair(training_texts.of_test_rows(prepared), ours, theirs)


def _who(champion: Champion) -> str:
    return f"champion {champion.name} version {champion.version}"


def _remedy(recipe: Recipe, theirs: manifest.Manifest) -> str:
    """How the splits would be the champion's own again, where a recipe's settings tell."""
    splits, was = recipe.data.splits, theirs.training
    said = []
    if was.get("salt", "") != splits.salt:
        said.append(f"set data.splits.salt to {was.get('salt', '')!r}")
    if splits.test > was.get("test_share", splits.test):
        said.append(f"set data.splits.test to {was['test_share']:g} or less")
    return "".join(f"{one}, " for one in said)


def _check_splits(recipe: Recipe, theirs: manifest.Manifest, champion: Champion) -> None:
    """Of a champion without hashes: salt and share tell whether rows can have moved. Test rows are
    the high end of the hashes: a smaller share of them is part of the champion's own test set, a
    larger one is not."""
    salt = theirs.training.get("salt", "")
    share = theirs.training.get("test_share", recipe.data.splits.test)
    if salt != recipe.data.splits.salt:
        raise UserError(
            f"{_who(champion)} was split with salt {salt!r}, this recipe has "
            f"{recipe.data.splits.salt!r}: rows it learned from may stand in this test set; set "
            f"data.splits.salt to {salt!r}, or register under another name"
        )
    if recipe.data.splits.test > share:
        raise UserError(
            f"{_who(champion)} was tested on a share of {share:g}, this recipe asks for "
            f"{recipe.data.splits.test:g}: rows it learned from would stand in this test set; set "
            f"data.splits.test to {share:g} or less, or register under another name"
        )


def _build(
    recipe: Recipe,
    prepared: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    champion: Champion | Unreadable | None,
    folder: Path,
) -> dict[str, Any]:
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
    artifact.write_json(folder / "decision.json", decision.to_dict())
    return decision.to_dict()


def _without_champion(
    recipe: Recipe,
    prepared: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    unreadable: Unreadable | None,
) -> Decision:
    name, metric = testset.deciding_metric(recipe, prepared.facts["head"])
    return decide(
        recipe.promote,
        metric=name,
        rows=evaluated.facts["rows"],
        candidate=Measured(evaluated.facts["value"], _default_size(exported.path / "model")),
        champion_version=unreadable.version if unreadable else None,
        unpaired_detectable=unpaired_detectable(
            Interval(**evaluated.facts["metrics"][name]), recipe.evaluate.confidence
        ),
        higher_is_better=metric.higher_is_better,
        nothing_to_compare=unreadable.told if unreadable else None,
    )


def _with_champion(
    recipe: Recipe,
    prepared: Artifact,
    exported: Artifact,
    evaluated: Artifact,
    champion: Champion,
) -> Decision:
    from serving.scorer import Scorer

    rows = testset.read(recipe, prepared)
    theirs = Scorer(champion.folder)
    pair = _statistics(recipe, exported, rows, evaluated, theirs)
    mask = fair_rows(prepared, champion)
    if mask is not None and not mask.all():
        pair = (pair[0][mask], pair[1][mask], pair[2])
        rows = testset.chosen(rows, mask)
    speeds = _speeds(Scorer(exported.path / "model"), theirs, rows)
    sizes = _default_size(exported.path / "model"), _default_size(champion.folder)
    decision = _decide(recipe, rows, pair, speeds, sizes, champion.version)
    return decision if mask is None else _told(decision, mask, champion)


def _told(decision: Decision, mask: NDArray[np.bool_], champion: Champion) -> Decision:
    """With a line about the rows that were left out."""
    n_out = len(mask) - int(mask.sum())
    reason = (
        f"{n_out:,} of {len(mask):,} test rows were left out, being texts that one of the two "
        f"models has learned from: version {champion.version} or this one."
    )
    numbers: dict[str, Any] = {"left_out": n_out, "test_rows": len(mask)}
    guard = Guard("training_texts", True, reason, numbers, asked=n_out > 0)
    return replace(decision, guards=(*decision.guards, guard))


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
        objective.statistics(rows.targets, ours, common),
        objective.statistics(rows.targets, other, common),
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
