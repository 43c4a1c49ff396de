"""Sources with real things behind them: SQLite, an in-memory file system, installed packages."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.schema import DocstringsSource, HubSource, Recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.sources import docstrings, hub
from headrace.tasks.data.sources.docstrings import first_sentence
from headrace.tasks.runtime import workspace
from tests import ROOT
from tests.toy import sentences, tiny_recipe, write_csv


def recipe_of(source: dict[str, Any], **data: Any) -> Recipe:
    return tiny_recipe(Path(), data={"source": source, "baseline": False, **data})


def all_rows(source: Any, split: str = "train") -> dict[str, list[Any]]:
    blocks = list(source.splits[split].read())
    assert [block.first_row for block in blocks] == sorted(block.first_row for block in blocks)
    return {
        name: [value for block in blocks for value in block.columns[name]]
        for name in blocks[0].columns
    }


# --- SQL ------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "reviews-secret7.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE reviews (id INTEGER PRIMARY KEY, body, stars INTEGER)")
        rows = [(text, len(label)) for text, label in sentences(300)]
        rows[5] = (None, 4)
        rows[6] = (b"caf\xe9", 4)
        rows[7] = (rows[7][0].encode(), 4)
        connection.executemany("INSERT INTO reviews (body, stars) VALUES (?, ?)", rows)
    connection.close()
    return path


def sql(query: str = "SELECT * FROM reviews ORDER BY id", url: str = "") -> Recipe:
    return recipe_of(
        {"kind": "sql", "url": url or "sqlite:///${env:REVIEWS_DB}", "query": query},
        columns={"text": "body", "label": "stars"},
    )


def test_sql_rows_are_read_and_the_rows_decide_what_is_new(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWS_DB", str(database))
    prepared = prepare(sql())
    assert prepared.facts["head"] == {"labels": ["4", "5"]}
    assert prepared.facts["rejected"] == {"null_text": 1, "invalid_utf8": 1}
    assert prepare(sql()).cached
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE reviews SET body = 'a new text' WHERE id = 9")
    connection.close()
    assert not prepare(sql()).cached


def test_secrets_are_in_no_artifact_and_no_log(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REVIEWS_DB", str(database))
    caplog.set_level(logging.DEBUG)
    prepared = prepare(sql())
    for file in workspace.home().rglob("*"):
        assert not file.is_file() or b"secret7" not in file.read_bytes(), file
    assert "secret7" not in caplog.text
    assert not list(workspace.home().glob("fetched-*"))
    assert prepared.path.exists()


@pytest.mark.parametrize(
    ("query", "url", "said"),
    [
        ("SELECT absent FROM reviews", "", "data.source: the query failed: no such column"),
        ("DELETE FROM reviews", "", "returns no rows; use a SELECT"),
        ("SELECT 1", "nosuch://u:${env:REVIEWS_DB}@host/db", "data.source.url: .*nosuch"),
        ("SELECT 1", "::${env:REVIEWS_DB}", r"data.source.url"),
        ("SELECT 1", "sqlite:////no/folder/${env:REVIEWS_DB}", "unable to open"),
    ],
)
def test_what_goes_wrong_with_sql_is_a_line_without_secrets(
    database: Path, monkeypatch: pytest.MonkeyPatch, query: str, url: str, said: str
) -> None:
    monkeypatch.setenv("REVIEWS_DB", str(database))
    with pytest.raises(DataError, match=said) as told:
        prepare(sql(query, url))
    assert "secret7" not in str(told.value)
    assert told.value.__cause__ is None
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM reviews").fetchone() == (300,)
    connection.close()


def test_two_columns_of_one_name_are_an_error_where_one_is_asked_for(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWS_DB", str(database))
    twice = "SELECT a.*, b.* FROM reviews a JOIN reviews b ON b.id = a.id + 1 ORDER BY a.id"
    with pytest.raises(
        DataError, match=r"data\.columns\.text: the train rows have 2 columns named 'body'"
    ):
        prepare(sql(twice))
    one_id = "SELECT a.*, b.id FROM reviews a JOIN reviews b ON b.id = a.id ORDER BY a.id"
    assert sum(prepare(sql(one_id)).facts["rows"].values()) > 200
    kept = sql(one_id).model_dump()
    kept["data"]["keep"] = ["id"]
    with pytest.raises(
        DataError, match=r"data\.keep: the train rows have 2 columns named 'id'; rename"
    ):
        prepare(Recipe.model_validate(kept))


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVIEWS_DB", raising=False)
    with pytest.raises(RecipeError, match="REVIEWS_DB is not set"):
        prepare(sql())


def blobs(folder: Path, blob: bytes, every: int = 300) -> list[dict[str, Any]]:
    """The same rows in a database and in Parquet, with bytes in the column `extra`."""
    rows = [
        (text, label, blob if i % every == 0 else b"plain")
        for i, (text, label) in enumerate(sentences(300))
    ]
    with sqlite3.connect(folder / "rows.db") as connection:
        connection.execute("CREATE TABLE rows (text, label, extra BLOB)")
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
    connection.close()
    text, label, extra = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"text": text, "label": label, "extra": extra}), folder / "rows.parquet"
    )
    return [
        {"kind": "sql", "url": f"sqlite:///{folder / 'rows.db'}", "query": "SELECT * FROM rows"},
        {"kind": "files", "train": str(folder / "rows.parquet")},
    ]


def test_bytes_in_a_kept_column_are_text_or_a_rejected_row(tmp_path: Path) -> None:
    for name, blob in (("good", "café".encode()), ("bad", b"\xff\xd8")):
        (tmp_path / name).mkdir()
        for source in blobs(tmp_path / name, blob):
            prepared = prepare(recipe_of(source, keep=["extra"]))
            kept = datasets.load_from_disk(str(prepared.path / "train"))["extra"]
            assert set(kept) <= {"café", "plain"}
            rejected = {} if name == "good" else {"invalid_utf8": 1}
            assert prepared.facts["rejected"] == rejected


def test_a_kept_column_of_pictures_is_one_clear_error(tmp_path: Path) -> None:
    for source in blobs(tmp_path, b"\xff\xd8", every=2):
        with pytest.raises(DataError, match="150 of 300 rows were rejected: 150 invalid_utf8; fix"):
            prepare(recipe_of(source, keep=["extra"]))


def test_bytes_in_a_label_are_a_rejected_row(tmp_path: Path) -> None:
    for source in blobs(tmp_path, b"\xff\xd8"):
        recipe = recipe_of(source, columns={"label": "extra"})
        with pytest.raises(DataError, match="at least two labels"):
            prepare(recipe)


# --- files behind URLs ----------------------------------------------------------------------------


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


# --- the Hub --------------------------------------------------------------------------------------


def test_an_unknown_data_set_is_told_in_a_line() -> None:
    with pytest.raises(DataError, match=r"'no-such/set' .* check the name and the network") as told:
        prepare(recipe_of({"kind": "hub", "dataset": "no-such/set"}))
    assert "\n" not in str(told.value)


def test_classes_come_by_name(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["one", "two", "three"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    source = HubSource(kind="hub", dataset=str(tmp_path))
    opened = hub.open_source(source, ["label", "text"])
    assert all_rows(opened)["label"] == ["good", "bad", None]
    assert opened.digest == hub.open_source(source, ["label", "text"]).digest
    with pytest.raises(DataError, match="split 'absent'"):
        hub.open_source(source.model_copy(update={"test": "absent"}), ["text"])


def test_classes_within_lists_come_by_name_too(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["O", "B-x"])
    features = datasets.Features(
        {
            "tags": datasets.List(label),
            "spans": datasets.List({"start": datasets.Value("int32"), "label": label}),
        }
    )
    rows = {"tags": [[0, 1], []], "spans": [[{"start": 3, "label": 1}], None]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    opened = hub.open_source(HubSource(kind="hub", dataset=str(tmp_path)), ["tags", "spans"])
    assert all_rows(opened) == {
        "tags": [["O", "B-x"], []],
        "spans": [[{"start": 3, "label": "B-x"}], None],
    }


# --- docstrings -----------------------------------------------------------------------------------


def docstring_source(**changes: Any) -> DocstringsSource:
    return DocstringsSource(
        **{"kind": "docstrings", "packages": ["email", "fsspec"], "per_package": 30} | changes
    )


def test_docstrings_are_distinct_masked_and_in_turn() -> None:
    opened = docstrings.open_source(docstring_source())
    rows = all_rows(opened)
    assert rows["label"][:4] == ["email", "fsspec"] * 2
    assert {label: rows["label"].count(label) for label in ("email", "fsspec")} == {
        "email": 30,
        "fsspec": 30,
    }
    assert len({text.casefold() for text in rows["text"]}) == 60
    for text in rows["text"]:
        assert len(text) >= 40
        assert "email" not in text.lower()
        assert "fsspec" not in text.lower()
        assert "\n" not in text
    assert set(rows["kind"]) <= {"module", "class", "function"}
    assert all_rows(docstrings.open_source(docstring_source())) == rows


def test_whole_docstrings_keep_their_lines() -> None:
    rows = all_rows(docstrings.open_source(docstring_source(form="whole")))
    assert any("\n" in text for text in rows["text"])


def test_packages_are_parsed_and_not_imported() -> None:
    call = (
        "import sys; from headrace.configs.schema import DocstringsSource;"
        "from headrace.tasks.data.sources import docstrings;"
        "names = ['mlflow', 'turtle'];"
        "source = DocstringsSource(kind='docstrings', packages=names, per_package=5);"
        "block = next(docstrings.open_source(source).splits['train'].read());"
        "print(len(block), *(name in sys.modules for name in names))"
    )
    told = subprocess.run(
        [sys.executable, "-c", call],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == ["10", "False", "False"]


def test_versions_and_not_paths_name_the_rows() -> None:
    digest = docstrings.open_source(docstring_source(packages=["email", "sklearn"])).digest
    assert digest["packages"][0] == ["email", f"python {sys.version.split()[0]}"]
    assert digest["packages"][1][1].startswith("scikit-learn 1.")


@pytest.mark.parametrize("name", ["scikit-learn", "no_such_package", "os.path", "sys"])
def test_a_package_that_is_not_there(name: str) -> None:
    with pytest.raises(DataError, match=f"package '{name}' is not installed"):
        docstrings.open_source(docstring_source(packages=["email", name]))


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Do it. Then rest.", "Do it."),
        ("\n    Do it\n    now\n\n    and more. Yes.\n", "Do it now"),
        ("Version 1.2 is it. No.", "Version 1.2 is it."),
        ("Do it\n  \nParameters.", "Do it"),
    ],
)
def test_first_sentence(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring) == sentence
