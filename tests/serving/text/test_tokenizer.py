"""Texts to tokens by a tokenizer.json, whole or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.serving.errors import ModelFolderError
from headrace.serving.text.tokenizer import TextTokenizer
from tests.serving.tiny_model import VOCABULARY, make_model, tokenizer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tokenizer()
    made.enable_padding(length=50)
    made.enable_truncation(3)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_special_tokens_are_added_and_texts_cut_whatever_the_file_was_saved_with(
    file: Path,
) -> None:
    rows = TextTokenizer(file, max_length=6).encode(["soup", "SOUP goal", "soup " * 9, "xyz", ""])
    assert [row.tolist() for row in rows] == [
        [2, 4, 3], [2, 4, 14, 3], [2, 4, 4, 4, 4, 3], [2, 1, 3], [2, 3],
    ]  # fmt: skip
    assert {row.dtype.name for row in rows} == {"int64"}


def test_no_texts_give_no_rows(file: Path) -> None:
    assert TextTokenizer(file, max_length=6).encode([]) == []


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json is missing"):
        TextTokenizer(tmp_path / "tokenizer.json", max_length=6)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json is not a valid tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json", max_length=6)


PANICS: dict[str, dict[str, Any]] = {
    "while it is read": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    },
    "while it encodes": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "while it decodes": {"decoder": {"type": "Strip", "content": "a", "start": 3, "stop": 3}},
}
"""Parts of a tokenizer.json at which the Rust code of tokenizers 0.23 panics."""


@pytest.mark.parametrize("when", PANICS)
def test_a_tokenizer_that_panics_is_the_models_error(tmp_path: Path, when: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(tokenizer().to_str()) | PANICS[when]))
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json crashes the tokenizers library"):
        use(file)


def use(file: Path) -> None:
    made = TextTokenizer(file, max_length=16)
    made.encode(["soup", "salt"])
    list(TextTokenizer(file, None).whole(["soup"]))
    made.decode([VOCABULARY["a"]])


def test_a_job_with_such_a_tokenizer_ends_with_the_models_error(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    file = model / "tokenizer.json"
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps(content | PANICS["while it is read"]))
    (tmp_path / "in.csv").write_text("text\nsoup\n")
    done = subprocess.run(
        [sys.executable, "-m", "headrace.flows.cli", "score", str(model), "in.csv", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("headrace: ")
    assert "crashes the tokenizers library" in done.stderr.splitlines()[-1]
