"""Recipes: what is accepted, and what a typo is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.configs.errors import RecipeError
from headrace.configs.load import json_schema, load
from headrace.tasks import objectives
from tests import ROOT

CONFIGS = ROOT / "configs"

MINIMAL = """
name: reviews
objective: classification
data: {source: {kind: files, train: rows.csv}}
model: {source: scratch}
"""


def write(folder: Path, text: str = MINIMAL) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    recipe = load(path)
    objectives.get(recipe.objective).OPTIONS.model_validate(recipe.options)


def test_the_schema_for_editors_is_the_schema(tmp_path: Path) -> None:
    written = json.loads((CONFIGS / "recipe.schema.json").read_bytes())
    assert written == json_schema(), "run `make schema`"


def test_paths_start_at_the_recipe_and_those_of_overrides_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load(write(tmp_path), ["data.source.test=held.csv"])
    assert recipe.data.source.model_dump(exclude={"max_row_bytes", "csv"}) == {
        "kind": "files",
        "train": str(tmp_path / "rows.csv"),
        "validation": None,
        "test": str(elsewhere / "held.csv"),
    }


def test_urls_are_left_alone(tmp_path: Path) -> None:
    recipe = load(write(tmp_path), ["data.source.train=s3://bucket/rows.csv"])
    assert recipe.data.source.train == "s3://bucket/rows.csv"  # type: ignore[union-attr]


def test_overrides_are_yaml_and_reach_absent_sections(tmp_path: Path) -> None:
    recipe = load(write(tmp_path), ["train.epochs=1", "model.lora={rank: 4}", "data.keep=[a, b]"])
    assert recipe.train.epochs == 1
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 4
    assert recipe.data.keep == ["a", "b"]


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("train.epoch=1", r"^override: unknown key 'train.epoch'; did you mean 'epochs'\?"),
        ("train={epoch: 1}", r"^override: unknown key 'train.epoch'"),
        ("data.source.tets=x", r"unknown key 'data.source.tets'; did you mean 'test'\?"),
        ("modle.source=x", r"unknown key 'modle'; did you mean 'model'\?"),
        (
            "train.zzz=1",
            r"unknown key 'train.zzz'; allowed: batch_size, batch_tokens, checkpoint_minutes",
        ),
        ("train.best_by=f1", r"unknown key 'train.best_by'; renamed to 'metric_for_best_model'"),
        ("promote.floor=0.5", r"unknown key 'promote.floor'; renamed to 'min_value'"),
        ("train.epochs=-1", r"'train.epochs': Input should be greater than 0 \(it is -1\)"),
        ("train.epochs=many", r"'train.epochs': .*valid number.* \(it is 'many'\)"),
        ("data.splits={validation: 0.5, test: 0.5}", r"validation \+ test must be below 1, not 1"),
        ("train.epochs", r"override 'train.epochs': write it as section.key=value"),
        ("name=a b", r"'name': String should match pattern"),
        (
            "data.columns={features: {age: numbr}}",
            r"^override: 'data.columns.features.age': Input should be 'number' or 'category'",
        ),
        ("data.source.kind=ftp", r"'data.source': .*'ftp'"),
    ],
)
def test_mistakes_are_answered_with_their_place_key_and_what_is_allowed(
    tmp_path: Path, override: str, answer: str
) -> None:
    with pytest.raises(RecipeError, match=answer):
        load(write(tmp_path), [override])


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'model' is missing"):
        load(write(tmp_path, MINIMAL.replace("model:", "#")))


def test_a_missing_file_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe .*nothing.yaml not found; `headrace init"):
        load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("text", ["a: [", "- a list", "\x00", ""])
def test_what_is_no_recipe_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        RecipeError, match=r"recipe.yaml (cannot be read|is not a recipe: expected a mapping)"
    ):
        load(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        (
            "train.launch.processes=0",
            r"'train.launch.processes': .*'auto' or .*greater than or equal to 1 \(it is 0\)",
        ),
        ("train.launch.processes=100000", "less than or equal to 1024"),
        ("train.learning_rate=.inf", r"'train.learning_rate': Input should be a finite number"),
        ("promote.min_value=.nan", r"'promote.min_value': Input should be a finite number"),
        (
            "model.scratch.config={x: .nan}",
            r"'model.scratch.config.x': Input should be a finite number",
        ),
        ("train.seed=9223372036854775808", r"'train.seed': numbers must be below 2\^63"),
        ("options={a: [{b: .inf}]}", "'options': numbers must be finite"),
        ("data.keep=[a, b, a]", "'data.keep': duplicate value 'a'"),
        ("export.variants=[fp32, int8, int8]", "'export.variants': duplicate value 'int8'"),
        ("evaluate.slices=[a, a]", "'evaluate.slices': duplicate value 'a'"),
    ],
)
def test_values_that_nothing_can_be_done_with_are_refused(
    tmp_path: Path, override: str, answer: str
) -> None:
    with pytest.raises(RecipeError, match=answer) as told:
        load(write(tmp_path), [override])
    assert "\n" not in str(told.value)


BOMB = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else 'x'}]" for i in range(12))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (BOMB, "more than 100,000 values; check for nested YAML aliases"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("[" * 3_000, "cannot be read: .*recursion"),
        (
            "name: a\nname: b",
            "cannot be read: duplicate key 'name' in line 2",
        ),
        ("data: {keep: [], keep: [a]}", "duplicate key 'keep' in line 1"),
        ("a: " + "9" * 5_000, "cannot be read: .*4300 digits"),
        ("a: 2026-13-45", "cannot be read: month must be in 1..12"),
        ("a: !!timestamp x", "cannot be read: "),
        ("!!python/object/apply:os.system ['exit 1']", "could not determine a constructor"),
        ("? [a, b]\n: 1", "cannot be read: .*unhashable"),
    ],
)
def test_broken_yaml_is_one_line(tmp_path: Path, text: str, answer: str) -> None:
    with pytest.raises(RecipeError, match=answer) as told:
        load(write(tmp_path, text))
    assert "\n" not in str(told.value)
    with pytest.raises(RecipeError):
        load(write(tmp_path), [f"options.x={text}"])
