"""A text as a source: pieces of it, to the character."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.configs.errors import DataError
from headrace.configs.schema import TextSource
from headrace.tasks.data.sources import open_source
from tests.tasks.data.rows import read

BOOK = "".join(f"Line {i} of a book, né à Zürich.\r\n" for i in range(400)) + "x" * 700


def test_pieces_are_the_text_to_the_character(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text(BOOK, encoding="utf-8", newline="")
    given = {"kind": "text", "files": str(file), "chunk_chars": 300, "validation": 0.1, "test": 0.2}
    splits = {
        name: read(tmp_path, name, **given)["text"] for name in ("train", "validation", "test")
    }
    assert "".join("".join(pieces) for pieces in splits.values()) == BOOK
    shares = [sum(map(len, one)) / len(BOOK) for one in splits.values()]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.015)  # to the nearest piece
    assert max(len(piece) for pieces in splits.values() for piece in pieces) <= 300
    assert sum(piece.endswith("\n") for piece in splits["train"]) >= len(splits["train"]) - 1


@pytest.mark.parametrize("text", ["abc", "a short text of a line", "x" * 700])
def test_a_short_text_has_pieces_for_every_split(tmp_path: Path, text: str) -> None:
    (tmp_path / "short.txt").write_text(text)
    given = {"kind": "text", "files": str(tmp_path / "short.txt"), "chunk_chars": 300}
    parts = [read(tmp_path, name, **given)["text"] for name in ("train", "validation", "test")]
    assert all(parts)
    assert "".join("".join(pieces) for pieces in parts) == text


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    for name, said in (
        ("latin.txt", "is not UTF-8 at byte 1; convert it to UTF-8"),
        ("empty.txt", "has no text"),
        ("none.txt", "no files match .*none.txt"),
    ):
        with pytest.raises(DataError, match=said):
            open_source(TextSource(kind="text", files=str(tmp_path / name)), [], tmp_path)


def test_another_text_is_another_source(tmp_path: Path) -> None:
    digests = []
    for content in ("one text", "one text", "another text"):
        (tmp_path / "t.txt").write_text(content)
        section = TextSource(kind="text", files=str(tmp_path / "t.txt"))
        digests.append(open_source(section, [], tmp_path).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_text_with_two_names_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8", newline="")
    (tmp_path / "link.txt").symlink_to(tmp_path / "book.txt")
    monkeypatch.chdir(tmp_path)
    names = ["book.txt", "./book.txt", str(tmp_path / "book.txt"), "*.txt"]
    one, all_of_them = (
        open_source(TextSource(kind="text", files=files), [], tmp_path)
        for files in ("book.txt", names)
    )
    assert all_of_them.digest == one.digest
