"""Docstrings of installed packages as a source."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from headrace.configs.errors import DataError
from headrace.configs.schema import DocstringsSource
from headrace.tasks.data.sources import docstrings
from headrace.tasks.data.sources.docstrings import first_sentence
from tests import ROOT
from tests.tasks.data.rows import all_rows


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
