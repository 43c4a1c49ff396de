"""Which test rows a champion has learned from, whatever split them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.configs.errors import ModelError
from headrace.configs.schema import Recipe, TextSource
from headrace.tasks.data import training_texts
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.sources import open_source
from headrace.tasks.evaluation.comparable import fair_rows
from headrace.tasks.runtime.artifacts import Artifact
from tests import fabricated
from tests.toy import WORDS, tiny_recipe, write_csv


@dataclass(frozen=True)
class Champion:
    folder: Path
    name: str = "tiny"
    version: str = "1"


def prepared(source: dict[str, Any], **data: Any) -> Artifact:
    section = {"source": {"kind": "files", **source}, "baseline": False, **data}
    return prepare(tiny_recipe(Path("-"), data=section))


def unfair(candidate: Artifact, champion: Artifact) -> int:
    mask = fair_rows(candidate, Champion(champion.path))
    assert mask is not None
    assert len(mask) == candidate.facts["rows"]["test"]
    return len(mask) - int(mask.sum())


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    """400 texts, all different by many words."""
    draw = random.Random(3)
    labels = sorted(WORDS)
    words = [f"{a}{b}" for a in "bdfgklmn" for b in ("ab", "ec", "id", "of", "ug", "ay")]
    return [(" ".join(draw.choices(words, k=20)), labels[i % 3]) for i in range(400)]


@pytest.fixture(scope="module")
def champion(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """It has learned from the first 200 of them, some as validation rows."""
    folder = tmp_path_factory.mktemp("champion")
    return prepared(
        {
            "train": str(write_csv(folder / "train.csv", rows[:150])),
            "validation": str(write_csv(folder / "validation.csv", rows[150:200])),
            "test": str(write_csv(folder / "test.csv", rows[200:240])),
        }
    )


def test_training_and_validation_rows_are_kept_as_hashes_of_8_bytes(champion: Artifact) -> None:
    found = training_texts.read(champion.path)
    assert found is not None
    assert len(found) == 200
    assert np.all(found[:-1] < found[1:])
    assert (champion.path / training_texts.FILE).stat().st_size == 128 + 200 * 8


def test_given_test_rows(champion: Artifact, rows: list[tuple[str, str]], tmp_path: Path) -> None:
    """Ten of its training rows and five of its validation rows, among others."""
    test = [*rows[:10], *rows[150:155], *rows[200:240], *rows[300:320]]
    candidate = prepared(
        {
            "train": str(write_csv(tmp_path / "train.csv", rows[155:190] + rows[320:])),
            "test": str(write_csv(tmp_path / "test.csv", test)),
        }
    )
    assert unfair(candidate, champion) == 15


def test_another_text_column_with_another_salt(
    champion: Artifact, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    """The column `body` holds the champion's texts, written otherwise."""
    body = [(f"  {text.upper()}", label) for text, label in rows[100:400]]
    table = write_csv(tmp_path / "bodies.csv", body)
    table.write_text(table.read_text().replace("text,label", "body,label", 1))
    candidate = prepared(
        {"train": str(table)}, columns={"text": "body"}, splits={"salt": "s", "test": 0.5}
    )
    test = fabricated.texts_of(candidate, "test")
    known = {text for text, _ in rows[100:200]}
    assert unfair(candidate, champion) == sum(text.strip().lower() in known for text in test) > 20


def test_rows_that_both_have_learned_from_are_fair(
    champion: Artifact, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Where the recipe leaves copies in; those that only one of the two knows are not."""
    candidate = prepared(
        {
            "train": str(write_csv(tmp_path / "train.csv", [*rows[:150], *rows[300:310]])),
            "validation": str(write_csv(tmp_path / "validation.csv", rows[310:330])),
            "test": str(write_csv(tmp_path / "test.csv", [*rows[140:160], *rows[295:305]])),
        },
        deduplicate={"exact": False, "near": False},
    )
    assert unfair(candidate, champion) == 10 + 5


def pieces(file: Path, split: str, **shares: float) -> list[str]:
    source = TextSource(kind="text", files=str(file), chunk_chars=300, **shares)
    blocks = open_source(source, ["text"], file.parent).splits[split].read()
    return [text for block in blocks for text in block.columns["text"]]


def test_a_text_in_pieces_with_another_share_or_more_of_it(tmp_path: Path) -> None:
    """Shares move whole pieces, so that they are known again."""
    file, longer = tmp_path / "book.txt", tmp_path / "longer.txt"
    text = "".join(f"Line {i}: {'x' * (i % 50)}, of a book.\n" for i in range(2000))
    file.write_text(text)
    longer.write_text(text + "And it goes on.\n" * 500)
    learned = {*pieces(file, "train", test=0.1), *pieces(file, "validation", test=0.1)}
    for test in (
        pieces(file, "test", test=0.4),
        pieces(longer, "test", test=0.45),
    ):
        known = [piece in learned for piece in test]
        n_known = sum(known)
        assert known == [True] * n_known + [False] * (len(known) - n_known)
        # To the piece: what is known ends where the champion's test rows begin.
        assert "".join(test[n_known:]).startswith("".join(pieces(file, "test", test=0.1))[:600])
        assert n_known > 50


def test_of_text_to_text_rows_it_is_the_text_read(
    rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Twenty of the champion's pairs, with other targets."""

    def made(name: str, train: slice, test: slice, target: str) -> Artifact:
        files = {}
        for split, chosen in (("train", train), ("test", test)):
            file = write_csv(
                tmp_path / f"{name}-{split}.csv",
                [(t, f"{target} {word}") for t, word in rows[chosen]],
            )
            file.write_text(file.read_text().replace("text,label", "source,target", 1))
            files[split] = str(file)
        given = tiny_recipe(Path("-")).model_dump()
        given["data"] = {
            "source": {"kind": "files", **files},
            "columns": {"text": "source"},
            "baseline": False,
        }
        scratch = {"model_type": "transformer-encoder-decoder", "vocab_size": 200}
        given["model"] = {"source": "scratch", "max_length": 32, "scratch": scratch}
        return prepare(Recipe.model_validate({**given, "objective": "translation"}))

    champion = made("champion", slice(0, 100), slice(100, 120), "eins")
    candidate = made("candidate", slice(120, 200), slice(80, 120), "zwei")
    assert unfair(candidate, champion) == 20


def test_hashes_are_read_as_numbers_alone(tmp_path: Path) -> None:
    np.save(tmp_path / training_texts.FILE, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ModelError, match=r"training_texts\.npy cannot be read"):
        training_texts.read(tmp_path)
    np.save(tmp_path / training_texts.FILE, np.zeros(3))
    with pytest.raises(ModelError, match="is damaged: it has float64"):
        training_texts.read(tmp_path)


def test_another_value_beside_a_text_does_not_make_it_another(
    rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    def table(name: str, part: list[tuple[str, str]], age: int) -> str:
        lines = [json.dumps({"text": text, "label": label, "age": age}) for text, label in part]
        (tmp_path / name).write_text("\n".join(lines))
        return str(tmp_path / name)

    def split(name: str, age: int, **parts: list[tuple[str, str]]) -> Artifact:
        source = {split: table(f"{name}-{split}.jsonl", part, age) for split, part in parts.items()}
        return prepared(source, columns={"features": {"age": "number"}})

    first = split("first", 30, train=rows[:150], validation=rows[150:200], test=rows[200:240])
    then = split("then", 31, train=rows[240:350], validation=rows[350:], test=rows[170:240])
    assert unfair(then, first) == 30
