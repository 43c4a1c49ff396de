"""Whatever a recipe or a command line says, the answer is a line: no traceback, no exit 1."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.flows import cli
from tests.flows import fuzzed
from tests.serving.tiny_model import make_model
from tests.toy import sentences, write_csv

Run = Callable[[bytes], tuple[int, str]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every recipe of the project on a tiny table, with a tiny model."""
    tables = fuzzed.tables(tmp_path_factory.mktemp("tables"))
    return {path.stem: fuzzed.small(path, tables) for path in sorted(fuzzed.CONFIGS.glob("*.yaml"))}


def called(*argv: object) -> tuple[int, str]:
    """Exit code and all that is printed; argparse leaves by an exception."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            code = cli.main([*map(str, argv), "--debug"])
        except SystemExit as left:
            code = int(left.code or 0)
    return code, told.getvalue()


def check_answer(code: int, told: str, given: object, allowed: tuple[int, ...] = (0, 2)) -> None:
    assert code in allowed, f"{given}\n{told}"
    if code == 2:
        lines = told.splitlines()
        assert any(line.startswith("headrace") for line in lines), f"{given}\n{told}"
        assert max(map(len, lines)) < 10_000


def fuzz(bases: dict[str, dict[str, Any]], file: Path, seed: int, n: int) -> None:
    codes = []
    for i in range(n):
        draw = random.Random(f"{seed}-{i}")
        content = fuzzed.mutated(bases[draw.choice(sorted(bases))], draw)
        file.write_bytes(content)
        code, told = called("check", file)
        check_answer(code, told, f"seed {seed}-{i}: {content.decode(errors='replace')[:5_000]}")
        codes.append(code)
    assert 0 in codes  # some of them are good, and go all the way
    assert 2 in codes


def test_mutated_recipes(bases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    fuzz(bases, tmp_path / "recipe.yaml", seed=1, n=100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_mutated_recipes(bases: dict[str, dict[str, Any]], tmp_path: Path, seed: int) -> None:
    fuzz(bases, tmp_path / "recipe.yaml", seed=seed, n=200)


def test_the_recipes_are_good_before_they_are_mutated(
    bases: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("csv", "generate", "tag"):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(bases[name]))
        code, told = called("check", tmp_path / "recipe.yaml")
        assert code == 0, told


@pytest.mark.parametrize("text", fuzzed.BROKEN, ids=range(len(fuzzed.BROKEN)))
def test_broken_yaml(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(text)
    code, told = called("check", tmp_path / "recipe.yaml")
    check_answer(code, told, text)
    assert code == 2


def test_overrides(bases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(bases["csv"]))
    draw = random.Random(5)
    values = [str(value) for value in fuzzed.VALUES if value != "\0"]
    for _ in range(150):
        key = ".".join(draw.choice(fuzzed.FIELDS))
        key = draw.choice((key, key, key, key + ".x", "." + key, key + ".", ""))
        override = f"{key}{draw.choice('===== :')}{draw.choice(values)}"
        check_answer(*called("check", file, "--", override), override)


OPTIONS = {
    "--keep": ["", "text", "nosuch", "row", "label", "x" * 5_000],
    "--partition-by": ["label", "nosuch", "", "row", "error", "probability"],
    "--chunk-rows": ["0", "-1", "7", "1e3", str(10**30), "nan"],
    "--max-rejected": ["nan", "inf", "-1", "2", "0", "x"],
    "--variant": ["nosuch", "fp32", ""],
    "--text": ["nosuch", "", "text"],
    "--format": ["csv", "jsonl", "xml", ""],
    "--device": ["cuda", "cpu", "nosuch"],
    "--option": ["x=1", "x", "=", "probabilities=1", "probabilities=.nan", "keep=a", "a=[", "=1"],
}


def test_options_of_scoring(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    table = write_csv(tmp_path / "rows.csv", sentences(20))
    draw = random.Random(6)
    for i in range(12):
        named = draw.choices(sorted(OPTIONS), k=draw.choice((1, 1, 2, 3)))
        options = [one for name in named for one in (name, draw.choice(OPTIONS[name]))]
        code, told = called("score", model, table, tmp_path / f"out{i}", *options)
        check_answer(code, told, options, allowed=(0, 2, 4))


@pytest.mark.parametrize(
    "twice",
    [
        ["--partition-by", "label", "--partition-by", "day"],
        ["--format", "csv", "--format", "csv"],
        ["--text-pair", "a", "--text-pair", "a"],
    ],
)
def test_an_option_that_is_given_twice_is_refused(twice: list[str]) -> None:
    code, told = called("score", "model", "rows.csv", "out", *twice)
    assert code == 2
    assert told.endswith(f"{twice[0]} may be given only once\n")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5_000, "loop", "plain/x"])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "plain").touch()
    model = make_model(tmp_path / "model")
    table = write_csv(tmp_path / "rows.csv", sentences(3))
    recipe = tmp_path / "recipe.yaml"
    data = {"source": {"kind": "files", "train": name}, "text": "text", "label": "label"}
    recipe.write_text(yaml.safe_dump({"name": "named", "data": data}))
    wrong = tmp_path / name
    for argv in (
        ("check", wrong),
        ("check", recipe),
        ("init", wrong),
        ("score", wrong, table, tmp_path / "out"),
        ("score", model, wrong, tmp_path / "out"),
        ("score", model, table, wrong),
    ):
        check_answer(*called(*argv), argv, allowed=(2,))
