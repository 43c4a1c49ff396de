"""Files of a table behind http://, as a signed address of a cloud store names them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from headrace.serving.errors import InputError, PlanError
from headrace.serving.tables.files import File, names_below
from tests.serving.job_runs import run
from tests.serving.tiny_model import make_model
from tests.toy import sentences, write_csv

SIGNED = "?sv=1&sig=a/b%3Dhunter2"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves rows.csv."""
    (tmp_path / "served").mkdir()
    write_csv(tmp_path / "served" / "rows.csv", sentences(30))
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")
    ) as one:
        Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def test_a_signed_address_is_a_file_and_its_signature_is_kept_nowhere(
    server: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "served" / "broken.parquet").write_bytes(b"PAR1")
    names = ["broken.parquet", "rows.csv"]
    report = run(model, [f"{server}/{name}{SIGNED}" for name in names], tmp_path / "out")
    assert report.rows == 30
    assert list(report.unreadable) == ["broken.parquet"]
    plan = json.loads((tmp_path / "out" / "_plan.json").read_bytes())
    assert [one["name"] for one in plan["input"]] == names
    for file in (tmp_path / "out").rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes(), file


def test_the_names_that_are_kept_have_no_password() -> None:
    files = [File(f"s3://key:hunter2/x@{bucket}/rows.csv") for bucket in ("one", "two")]
    assert names_below(files) == ["one/rows.csv", "two/rows.csv"]
    for plain in ("https://host:8080/a@b/rows.csv", "s3://bucket/at=12:30/a@b.csv"):
        assert str(File(plain)) == plain


def test_a_file_that_changed_behind_its_address_is_another(
    server: str, model: Path, tmp_path: Path
) -> None:
    run(model, f"{server}/rows.csv", tmp_path / "out")
    file = tmp_path / "served" / "rows.csv"
    file.write_bytes(file.read_bytes().replace(b"goal", b"GOAL"))
    os.utime(file, (10_000, 10_000))
    with pytest.raises(PlanError, match=r"the content of its input rows\.csv has changed"):
        run(model, f"{server}/rows.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:1/rows.csv?a=1", "cannot be read: Cannot connect to host"),
        ("{server}/none.csv", "cannot be read: the server returned status 404"),
    ],
)
def test_what_the_server_says_is_told(
    address: str, why: str, server: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=why):
        run(model, address.format(server=server), tmp_path / "out")
    assert not (tmp_path / "out").exists()
