"""Secrets reach no terminal, no log, no file and no server, wherever a user writes them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.tasks.runtime import supervised_process
from tests import ROOT
from tests.toy import sentences

Call = Callable[..., tuple[int, Any, str]]

SECRET = "Hu/nter2+x9Q"
ENCODED = "Hu%2Fnter2%2Bx9Q"
PIECES = ("nter2", "x9Q")
"""Of the secret, that libraries quote by themselves: cut at the slash, decoded or not."""


def files_with_a_secret(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if any(one.encode() in file.read_bytes() for one in PIECES)]


def check_no_secret(told: str, home: Path) -> None:
    assert not [one for one in PIECES if one in told], told
    assert files_with_a_secret(home) == []


SQL = "{{kind: sql, query: SELECT 1, url: '{url}'}}"
FILES = "{{kind: files, train: '{url}'}}"


@pytest.mark.parametrize(
    ("source", "url"),
    [
        (SQL, f"postgresql+asyncpg://me:{ENCODED}@127.0.0.1:9/db"),
        (SQL, f"postgresql://me:{SECRET}@127.0.0.1:9/db"),
        (SQL, f"nosuch://me:{SECRET}@127.0.0.1:9/db"),
        (SQL, "postgresql+asyncpg://me:${env:DB_LOGIN}@127.0.0.1:9/db"),
        (SQL, "nosuch://me@127.0.0.1/db?password=${env:DB_LOGIN}"),
        (SQL, f"sqlite:////no/folder/a.db?password={ENCODED}"),
        (SQL, "sqlite:////no/${env:DB_LOGIN}/a.db"),
        (FILES, f"s3://AKIAKEY:{SECRET}@bucket/rows.csv"),
        (FILES, f"s3://AKIAKEY:{ENCODED}@bucket/rows.csv"),
        (FILES, f"simplecache::s3://AKIAKEY:{SECRET}@bucket/rows.csv"),
        (FILES, "s3://AKIAKEY:${env:DB_LOGIN}@bucket/rows.csv"),
        (FILES, f"http://127.0.0.1:9/rows.csv?sv=1&sig={ENCODED}"),
        (FILES, f"ftp://me:{SECRET}@127.0.0.1:9/rows.csv"),
        (FILES, f"nosuch://me:{SECRET}@bucket/rows.csv"),
        ("{{kind: sql, url: '{url}'}}", f"postgresql://me:{SECRET}@127.0.0.1:9/db"),
        ("'{url}'", f"postgresql://me:{SECRET}@127.0.0.1:9/db"),
    ],
)
def test_a_source_that_fails_tells_no_secret(
    headrace: Call,
    recipe_file: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    url: str,
) -> None:
    monkeypatch.setenv("DB_LOGIN", SECRET)
    override = "data.source=" + source.format(url=url)
    code, value, err = headrace("check", recipe_file, override, "data.baseline=false", "--debug")
    assert code == 2, err
    check_no_secret(f"{value} {err}", home)
    assert value["error"].count("\n") == 0


def test_nor_does_a_table_that_cannot_be_scored(headrace: Call, home: Path, tmp_path: Path) -> None:
    from tests.serving.tiny_model import make_model

    model = make_model(tmp_path / "model")
    url = f"s3://AKIAKEY:{SECRET}@bucket"
    for given in ([f"{url}/rows.csv", tmp_path / "out"], [__file__, f"{url}/out"]):
        code, value, err = headrace("score", model, *given, "--debug")
        assert code == 2
        check_no_secret(f"{value} {err}", tmp_path)


def test_nor_do_wrong_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    from headrace.flows import cli

    with pytest.raises(SystemExit):
        cli.main(["history", "name", f"postgresql://me:{SECRET}@host/db"])
    told = capfd.readouterr().err
    assert "unrecognized arguments: postgresql://me:***@host/db" in told
    assert "nter2" not in told


def test_a_run_that_fails_leaves_no_secret_with_prefect(recipe_file: Path, home: Path) -> None:
    """The recipe, the overrides, the failure's text and its logs all go to Prefect's database.

    In a process of its own: Prefect keeps the address it was imported with.
    """
    override = f"data.source={{kind: sql, query: q, url: 'nosuch://me:{SECRET}@127.0.0.1:9/db'}}"
    script = Path(sys.executable).with_name("headrace")
    done = subprocess.run(
        [str(script), "train", str(recipe_file), override, "--debug", "--json"],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "nosuch" in done.stdout) == (2, True), done.stderr
    check_no_secret(f"{done.stdout} {done.stderr}", home)
    assert (home / "prefect").is_dir()


CHILD = """
import logging, sys, warnings
logging.getLogger("any").warning("at %s", sys.argv[1])
warnings.warn("warned of " + sys.argv[1])
try:
    raise ValueError("caught " + sys.argv[1])
except ValueError:
    logging.getLogger("any").exception("failed")
raise RuntimeError("died of " + sys.argv[1])
"""


def test_a_child_process_masks_what_it_logs_and_dies_of(tmp_path: Path) -> None:
    (tmp_path / "telltale.py").write_text(CHILD)
    url = f"postgresql://me:{SECRET}@host/db"
    root = ROOT
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    how = {"cwd": root, "env": env, "stderr": subprocess.PIPE}
    with supervised_process.running("telltale", [url], **how) as child:
        assert child.stderr is not None
        with child.stderr:
            told = child.stderr.read().decode()
    said = "postgresql://me:***@host/db"
    for part in ("at ", "warned of ", "ValueError: caught ", "RuntimeError: died of "):
        assert part + said in told
    assert "nter2" not in told


def test_what_a_database_gives_is_left_as_it_is(
    headrace: Call, recipe_file: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are data, whatever they look like."""
    path = tmp_path / "rows.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (text, label)")
        rows = [
            (f"{text} password=abc{i}", label) for i, (text, label) in enumerate(sentences(300))
        ]
        connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
    connection.close()
    monkeypatch.setenv("ROWS_DB", str(path))
    source = "data.source={kind: sql, query: SELECT * FROM rows, url: 'sqlite:///${env:ROWS_DB}'}"
    code, facts, _ = headrace("check", recipe_file, source, "data.baseline=false")
    assert code == 0
    import datasets

    texts = datasets.load_from_disk(str(Path(facts["folder"]) / "train"))["text"]
    assert all("password=abc" in text for text in texts)
