from pathlib import Path

import pytest

from headrace.serving.errors import ModelFolderError
from headrace.serving.text.tokenizer import TextTokenizer
from tests.serving.tiny_model import tokenizer


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
