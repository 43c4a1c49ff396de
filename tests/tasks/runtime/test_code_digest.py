"""What a stage runs determines what it makes: no change of code leaves a stale artifact behind.

The stages run for real, and every call of a function of ours is noted, the trainer's too.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from headrace.tasks.data.prepare import prepare
from headrace.tasks.evaluation.decide import decide
from headrace.tasks.evaluation.evaluate import evaluate
from headrace.tasks.export.export import export
from headrace.tasks.reporting.report import report
from headrace.tasks.runtime import artifacts, code_digest
from headrace.tasks.runtime.facts import StageArtifacts
from headrace.tasks.training.train import train
from tests.tasks.objectives.test_contract import OPTIONS, SCRATCH, table
from tests.toy import tiny_recipe

OURS = ("headrace", "headrace_regression")
NOTING = """
import os, sys, threading

seen, names = set(), set()

def note(frame, event, arg):
    if frame.f_code in seen:
        return
    seen.add(frame.f_code)
    name = frame.f_globals.get("__name__", "")
    if name == "__main__":
        name = getattr(frame.f_globals.get("__spec__"), "name", None) or ""
    if frame.f_code.co_name != "<module>" and name.split(".")[0] in OURS and name not in names:
        names.add(name)
        with open(os.environ["HEADRACE_TEST_NOTED"], "a") as file:
            file.write(name + "\\n")

threading.settrace(note)
sys.settrace(note)
"""
"""As `sitecustomize`, notes what child processes run."""


@contextmanager
def noting(names: set[str]) -> Iterator[None]:
    """Every module of ours that has a function called meanwhile."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_code not in seen:
            seen.add(frame.f_code)
            name = str(frame.f_globals.get("__name__"))
            if frame.f_code.co_name != "<module>" and name.split(".")[0] in OURS:
                names.add(name)

    before = sys.gettrace()
    # A generator that an earlier test left unfinished is closed when it is collected: a call.
    gc.collect()
    gc.freeze()
    threading.settrace(note)
    sys.settrace(note)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]
        gc.unfreeze()


class Stages:
    """The stages that were made: the code each said it depends on, and the modules it ran."""

    def __init__(self) -> None:
        self.code: dict[str, list[str]] = {}
        self.ran: dict[str, set[str]] = {}

    def follow(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def followed(stage: str, *, build: Callable[..., Any], **how: Any) -> Any:
            self.code[stage], names = list(how["code"]), self.ran.setdefault(stage, set())

            def build_noting(folder: Path) -> Any:
                with noting(names):
                    return build(folder)

            return make(stage, build=build_noting, **how)

        return followed

    def left_out(self) -> dict[str, list[str]]:
        """By stage, the modules that it ran and that its digest does not know."""
        return {
            stage: sorted(ran - set(code_digest.modules_behind(self.code[stage])))
            for stage, ran in self.ran.items()
        }


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    made = Stages()
    monkeypatch.setattr(artifacts, "make", made.follow(artifacts.make))
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"OURS = {OURS!r}\n{NOTING}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("HEADRACE_TEST_NOTED", str(tmp_path / "noted"))
    return made


def recipe_of(objective: str, folder: Path) -> Any:
    recipe = tiny_recipe(
        table(objective, folder),
        name=f"code-{objective}",
        objective=objective,
        options=OPTIONS.get(objective, {}),
        train={"max_steps": 2, "batch_size": 16, "precision": "fp32"},
        evaluate={"resamples": 100},
        export={
            "variants": ["fp32"] if objective in SCRATCH else ["fp32", "int8"],
            "gate": {"rows": 32},
            "calibration_rows": 32,
        },
    )
    if objective not in SCRATCH:
        return recipe
    model = {"source": "scratch", "max_length": 24, "scratch": SCRATCH[objective]}
    return recipe.model_validate({**recipe.model_dump(mode="json"), "model": model})


@pytest.mark.parametrize(
    ("objective", "runs", "left_alone"),
    [
        # Of another package, and read by one pass.
        (
            "regression",
            {
                "headrace_regression.head",
                "headrace_regression.objective",
                "headrace.tasks.export.encoder_harness",
                "headrace.tasks.export.graphs.quantization",
            },
            {
                "headrace.tasks.export.decoder_harness",
                "headrace.tasks.export.graphs.decoder_step",
                "headrace.tasks.objectives.generation",
            },
        ),
        pytest.param(
            "generation",
            {
                "headrace.serving.heads.generation",
                "headrace.tasks.export.decoder_harness",
                "headrace.tasks.export.graphs.decoder_step",
            },
            {"headrace.tasks.export.encoder_harness", "headrace_regression.head"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "translation",
            {
                "headrace.serving.heads.translation",
                "headrace.tasks.export.decoder_harness",
                "headrace.tasks.export.graphs.decoder_step",
            },
            {"headrace.tasks.export.encoder_harness"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "tagging",
            {
                "headrace.serving.heads.tagging",
                "headrace.tasks.objectives.tagging",
                "headrace.tasks.export.encoder_harness",
                "headrace.tasks.export.graphs.quantization",
            },
            {"headrace.tasks.export.decoder_harness"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_module_that_a_stage_runs_is_in_its_digest(
    objective: str, runs: set[str], left_alone: set[str], stages: Stages, tmp_path: Path
) -> None:
    recipe = recipe_of(objective, tmp_path)
    prepared = prepare(recipe)
    trained = train(recipe, prepared)
    stages.ran["train"] |= set((tmp_path / "noted").read_text().split())
    exported = export(recipe, prepared, trained)
    evaluated = evaluate(recipe, prepared, exported)
    decided = decide(recipe, prepared, exported, evaluated, None)
    report(recipe, StageArtifacts(prepared, trained, exported, evaluated, decided))

    assert stages.left_out() == {
        "prepare": [], "train": [], "export": [], "evaluate": [], "decide": [], "report": [],
    }  # fmt: skip
    assert {"headrace.tasks.training.worker", "headrace.tasks.training.setup"} < stages.ran["train"]
    assert {"headrace.tasks.export.try_variants", *runs} < stages.ran["export"]
    # What exports another kind of model, or what exports at all, is nothing to the others.
    behind = {stage: set(code_digest.modules_behind(code)) for stage, code in stages.code.items()}
    assert not left_alone & behind["export"]
    assert (
        not {
            "headrace.tasks.export.export",
            "headrace.tasks.export.try_variants",
            "headrace.tasks.export.parity",
            "headrace.tasks.export.variants",
        }
        & behind["report"]
    )


def test_the_kind_of_a_source_is_in_the_digest_of_prepare(stages: Stages, tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    from tests.toy import sentences

    url = f"sqlite:///{tmp_path / 'rows.db'}"
    with create_engine(url).begin() as database:
        database.execute(text("create table rows (text text, label text)"))
        rows = [{"text": one, "label": label} for one, label in sentences(400)]
        database.execute(text("insert into rows values (:text, :label)"), rows)
    recipe = tiny_recipe(table("classification", tmp_path))
    source = {"kind": "sql", "url": url, "query": "select * from rows"}
    content = recipe.model_dump(mode="json")
    prepare(recipe.model_validate({**content, "data": {**content["data"], "source": source}}))
    assert stages.left_out() == {"prepare": []}
    assert "headrace.tasks.data.sources.sql" in stages.ran["prepare"]
    assert "headrace.tasks.data.sources.files" not in code_digest.modules_behind(
        stages.code["prepare"]
    )


def write_module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def test_the_code_digest_follows_imports_and_ignores_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "ours"
    package.mkdir()
    write_module(package, "__init__", "")
    write_module(package, "stage", "from ours import helper\nfrom ours.deep import f\n")
    write_module(package, "helper", "X = 1\n")
    write_module(package, "deep", "def f():\n    'says'\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code_digest, "OURS", ("ours",))

    def digest() -> str:
        code_digest.code_digest.cache_clear()
        return code_digest.code_digest(("ours.stage",))

    before = digest()
    write_module(package, "deep", "# why\ndef f():\n    'says more'\n    return 1\n")
    assert digest() == before
    write_module(package, "deep", "def f():\n    return 2\n")
    changed = digest()
    assert changed != before
    write_module(package, "helper", "X = 2\n")
    assert digest() not in (before, changed)
    code_digest.code_digest.cache_clear()
