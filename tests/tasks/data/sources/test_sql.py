"""A query as a source, with a real database behind it: SQLite."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.schema import Recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.runtime import workspace
from tests.tasks.data.rows import recipe_of
from tests.toy import sentences


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
