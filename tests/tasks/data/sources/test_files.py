"""Files as a source: behind URLs, under two names, with rows that are too long."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from headrace.configs.errors import DataError
from headrace.configs.schema import FilesSource
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.sources.files import open_source
from headrace.tasks.runtime import workspace
from tests.tasks.data.rows import all_rows, recipe_of
from tests.toy import sentences, write_csv


def test_files_behind_urls_are_fetched_in_order(tmp_path: Path) -> None:
    rows = sentences(300)
    memory = fsspec.filesystem("memory")
    for number, part in enumerate((rows[:100], rows[100:200], rows[200:])):
        local = write_csv(tmp_path / f"part{number}.csv", part)
        memory.put_file(str(local), f"/reviews/part{number}.csv")
    given = [str(tmp_path / f"part{i}.csv") for i in range(3)]
    there = prepare(recipe_of({"kind": "files", "train": "memory://reviews/*.csv"}))
    assert sum(there.facts["rows"].values()) + there.facts["duplicates"]["near"] == 300
    assert not list(workspace.home().glob("fetched-*"))
    # The same bytes, wherever they come from, are the same artifact.
    assert prepare(recipe_of({"kind": "files", "train": given})).cached
    assert prepare(recipe_of({"kind": "files", "train": "memory://reviews"})).cached
    folder = recipe_of({"kind": "files", "train": str(tmp_path)})
    assert prepare(folder).cached


def test_a_file_with_two_names_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "part.csv", sentences(200))
    (tmp_path / "link.csv").symlink_to(path)
    fsspec.filesystem("memory").put_file(str(path), "/once/part.csv")
    monkeypatch.chdir(tmp_path)
    once = prepare(recipe_of({"kind": "files", "train": str(path)}))
    for names in (
        [str(path), "part.csv", "./part.csv", "link.csv", "*.csv", path.as_uri()],
        ["memory://once/part.csv", "memory://once/*.csv", "memory://once"],
    ):
        again = prepare(recipe_of({"kind": "files", "train": names}))
        assert again.cached
        assert again.digest == once.digest


def test_rows_over_the_limit_are_rejected_and_the_limit_counts(tmp_path: Path) -> None:
    rows = sentences(200)
    path = write_csv(tmp_path / "part.csv", [("x" * 5_000, "food"), *rows])
    limited = prepare(recipe_of({"kind": "files", "train": str(path), "max_row_bytes": 4_000}))
    assert limited.facts["rejected"] == {"row_too_large": 1}
    assert prepare(recipe_of({"kind": "files", "train": str(path)})).facts["rejected"] == {}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://absent/rows.csv", "memory://absent/rows.csv cannot be fetched"),
        ("memory://absent/*.csv", r"no files match memory://absent/\*.csv"),
        ("nosuch://bucket/rows.csv", "cannot be fetched: ValueError: Protocol not known"),
    ],
)
def test_a_url_that_cannot_be_fetched(url: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepare(recipe_of({"kind": "files", "train": url}))


def test_a_fetched_file_has_a_name_that_any_system_allows(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/any/a:b|c.csv", b"text,label\none,x\n")
    source = FilesSource(kind="files", train="memory://any/a:b|c.csv")
    opened = open_source(source, ["text"], tmp_path)
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["000000-a_b_c.csv"]
    assert all_rows(opened)["text"] == ["one"]
