"""A registry on a real MLflow server that asks who is there: passwords, tokens, and neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.configs.errors import UserError
from headrace.tasks.registry import by_reference, resolve, tracking
from tests import fabricated

PASSWORD, TOKEN = "a-long-password", "a-token-of-theirs"
BEARER = f'''
from flask import request
from mlflow.server.auth import authenticate_request_basic_auth
from werkzeug.datastructures import Authorization

def authenticate():
    if request.headers.get("Authorization") == "Bearer {TOKEN}":
        return Authorization("basic", {{"username": "admin", "password": "{PASSWORD}"}})
    return authenticate_request_basic_auth()
'''
"""What a company puts before its server: its own tokens beside MLflow's passwords."""
CONFIG = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = admin
admin_password = {password}
authorization_function = bearer:authenticate
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("flask_wtf", reason="mlflow[auth]")
    folder = tmp_path_factory.mktemp("server")
    (folder / "bearer.py").write_text(BEARER)
    (folder / "auth.ini").write_text(CONFIG.format(folder=folder, password=PASSWORD))
    command = ["mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(folder / "auth.ini"))
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "secret")
        patch.setenv("PYTHONPATH", str(folder))
        with fabricated.server([*command, *stores, *artifacts], "/health", 300) as url:
            yield url


@pytest.fixture
def newcomer(address: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Somebody who knows the address, in a new process."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(tracking, "_clients", {})
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "credentials"),
    [
        ("password", {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}),
        ("token", {"MLFLOW_TRACKING_TOKEN": TOKEN}),
    ],
)
def test_who_has_credentials_registers_and_scores(
    name: str, credentials: dict[str, str], newcomer: pytest.MonkeyPatch
) -> None:
    for variable, value in credentials.items():
        newcomer.setenv(variable, value)
    registered = fabricated.registered(name, fabricated.stages(name))
    found = resolve.resolve(f"{name}/1")
    assert resolve.load(name).score(["soup"])["label"].to_pylist() == ["food"]
    assert Path(found.folder, "manifest.json").is_file()
    assert [entry.action for entry in by_reference.history(name)] == ["promote"]
    assert resolve.report_of(registered.run_id).read_text() == "<html>what happened</html>"


@pytest.mark.parametrize(
    "credentials",
    [{}, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong"}],
)
def test_who_has_none_is_told_what_to_set(
    credentials: dict[str, str], newcomer: pytest.MonkeyPatch, address: str
) -> None:
    for variable, value in credentials.items():
        newcomer.setenv(variable, value)
    told = f"MLFLOW_TRACKING_URI={address} cannot be opened: the server refuses the credentials"
    with pytest.raises(UserError, match=f"{told}; set MLFLOW_TRACKING_USERNAME and") as problem:
        tracking.connect()
    assert "wrong" not in str(problem.value)
