"""Recipes that nobody would write, made from those of the project; the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from headrace.configs.load import _models_in
from headrace.configs.schema import Recipe
from tests import ROOT
from tests.toy import sentences, write_csv

CONFIGS = ROOT / "configs"
N_ROWS = 120
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, -(2**63), 0.0, -0.0, 0.5, 1.0, -1.5,
    1e-300, 1e308, float("inf"), float("-inf"), float("nan"), "", " ", "x", "nan", "0", "1e3",
    "\0", "a\nb", "e\u0301\U0001f600\u200d", "\u202e", "../..", "/", "~nobody/x", ".", "*", "[",
    "${env:ABSENT}", "${env:}", "s3://", "://", "file:///", "x" * 5_000, [], {}, [[]], [None],
    ["a", "a"],
    [1, 1.5],
    ["text"], ["label", "label"], {"a": 1}, {"": None}, {1: 2}, {None: 1},
    {"a": {"b": []}}, b"\xff",
    "label", "text", "auto", "scratch", "bert", "files", "sql", "text ", "TEXT",
]  # fmt: skip
BROKEN = [
    b"", b"\0", b"\xff\xfe\x00", b"\xef\xbb\xbfname: x", "name: é".encode("latin-1"), b"a: [",
    b"\ta: 1", b"a:\n\t- b", b"- a\n- b", b"null", b"3", b"a: 1\na: 2", b"a: *b", b"a: &a [*a]",
    b"&a {*a : 1}",
    b"!!python/object/apply:os.system ['exit 1']", b"a: !!python/name:os.system", b"a: !nosuch x",
    b"a: 2026-13-45", b"a: !!timestamp x", b"a: !!int x", b"a: !!float x", b"a: !!binary '%'",
    b"a: !!bool x", b"<<: 1", b"? [a, b]\n: 1", b"? {a: 1}\n: 1", b"a: 0o9", b"a: 0x_", b"a: 1:99",
    b"--- a\n--- b", b"%YAML 9.9\n---\na: 1", b"[" * 3_000, b"{a: " * 3_000, b"a: " + b"9" * 5_000,
    b"a: '\\", b'a: "\\ud800"', b'a: "\\x00"', b"a: !!set {b, b}", b"a: !!omap [b]",
    b"a: !!pairs x",
    b"\n".join(
        b"a%d: &a%d [%s]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10) if i else b"x")
        for i in range(12)
    ),
]  # fmt: skip


def tables(folder: Path) -> dict[str, Path]:
    """A tiny table for each objective, and a text."""
    rows = sentences(N_ROWS)
    (folder / "book.txt").write_text(" ".join(text for text, _ in rows))
    pairs = [{"text": text, "target": text[::-1]} for text, _ in rows]
    tags = [
        {"text": text, "tags": [{"start": 0, "end": len(text.split()[0]), "label": label}]}
        for text, label in rows
    ]
    labels = [{"text": text, "labels": [label]} for text, label in rows]
    found = {"classification": write_csv(folder / "rows.csv", rows), "text": folder / "book.txt"}
    for name, given in (("translation", pairs), ("tagging", tags), ("multilabel", labels)):
        found[name] = folder / f"{name}.jsonl"
        found[name].write_text("\n".join(map(json.dumps, given)))
    return {**found, "generation": found["classification"]}


def small(config: Path, tables: dict[str, Path]) -> dict[str, Any]:
    """The recipe on a tiny table, with a tiny model from random weights."""
    recipe: dict[str, Any] = yaml.safe_load(config.read_text())
    data, objective = recipe["data"], recipe["objective"]
    if data["source"]["kind"] == "text":
        data["source"]["files"] = str(tables["text"])
    else:
        data["source"] = {"kind": "files", "train": str(tables[objective])}
        data["columns"] = {}
    data |= {"baseline": False, "keep": [], "limits": {"min_rows_per_label": 1}}
    data["splits"] = {"validation": 0.2, "test": 0.3}
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    kind = recipe["model"].get("scratch", {}).get("model_type", "bert")
    if kind in ("marian", "gpt2"):
        sizes = {}
    config_of = {**sizes, "max_position_embeddings": 128} if sizes else {}
    recipe["model"] = {
        "source": "scratch",
        "max_length": 32,
        "scratch": {"model_type": kind, "vocab_size": 300, "config": config_of},
    }
    recipe["train"] = {"epochs": 1}
    recipe["evaluate"] = {"resamples": 100}
    recipe.pop("long_text", None)
    return recipe


def fields(section: type[Any] = Recipe, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all that a recipe can say."""
    for name, field in section.model_fields.items():
        yield (*at, name)
        for inner in _models_in(field.annotation):
            yield from fields(inner, (*at, name))


FIELDS = sorted(set(fields()))
SOURCES = [
    {"kind": "files"}, {"kind": "hub", "dataset": "no/such"}, {"kind": "sql", "query": "SELECT 1"},
    {"kind": "sql", "url": "sqlite://", "query": "SELECT 1 AS text, 2 AS label"},
    {"kind": "docstrings", "packages": ["email", "json"], "per_package": 5},
    {"kind": "dates", "rows": 100}, {"kind": "text", "files": "nosuch"}, {"kind": "nosuch"},
]  # fmt: skip


def mutated(recipe: dict[str, Any], draw: random.Random) -> bytes:
    """One to three things in it changed."""
    made = json.loads(json.dumps(recipe))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice((set_one, set_one, set_one, set_one, delete, swap, unknown, source))(made, draw)
    text = yaml.safe_dump(made, allow_unicode=draw.random() < 0.5, sort_keys=False).encode()
    return broken(text, draw) if draw.random() < 0.08 else text


def places(recipe: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in recipe.items():
        yield (*at, name)
        if isinstance(value, dict):
            yield from places(value, (*at, name))


def put(recipe: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *above, last = path
    for name in above:
        if not isinstance(recipe.get(name), dict):
            recipe[name] = {}
        recipe = recipe[name]
    recipe[last] = value


def set_one(recipe: dict[str, Any], draw: random.Random) -> None:
    """Most often to something that the schema takes, so that the stages meet it."""
    known = draw.choice(FIELDS if draw.random() < 0.7 else list(places(recipe)))
    for _ in range(12):
        put(recipe, known, draw.choice(VALUES))
        if draw.random() < 0.1 or accepted(recipe):
            return


def accepted(recipe: dict[str, Any]) -> bool:
    try:
        Recipe.model_validate(recipe)
    except ValidationError:
        return False
    return True


def delete(recipe: dict[str, Any], draw: random.Random) -> None:
    *above, last = draw.choice(list(places(recipe)))
    for name in above:
        recipe = recipe[name]
    del recipe[last]


def swap(recipe: dict[str, Any], draw: random.Random) -> None:
    one, other = draw.choice(list(recipe)), draw.choice(list(recipe))
    recipe[one], recipe[other] = recipe[other], recipe[one]


def unknown(recipe: dict[str, Any], draw: random.Random) -> None:
    *above, last = draw.choice(FIELDS)
    put(recipe, (*above, draw.choice((last + "s", last.upper(), "", "1"))), draw.choice(VALUES))


def source(recipe: dict[str, Any], draw: random.Random) -> None:
    put(recipe, ("data", "source"), dict(draw.choice(SOURCES)))


def broken(text: bytes, draw: random.Random) -> bytes:
    """Its YAML damaged, or something else in its place."""
    if draw.random() < 0.5:
        return draw.choice(BROKEN)
    at = draw.randrange(len(text) + 1)
    return draw.choice(
        (
            text[:at],
            text[:at] + draw.randbytes(3) + text[at:],
            text[:at] + draw.choice(BROKEN) + text[at:],
            text + b"\n" + text,
        )
    )
