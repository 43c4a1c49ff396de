"""Shared ground: a workspace of its own for every test session, and one tiny real pipeline.

The fixtures `recipe` → `prepared` → `trained` → `exported` → `evaluated` are the real stages on a
small table, made once a session. Nothing here may reach the network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toy import sentences, tiny_recipe, write_csv

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # tiny steps, and cores that others use too
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# A package that brings an objective of its own, as if it were installed: for child processes too.
EXTENSION = str(Path(__file__).parent / "extension")
sys.path.append(EXTENSION)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), EXTENSION]))
for variable in [name for name in os.environ if name.startswith(("MLFLOW_", "PREFECT_API_URL"))]:
    del os.environ[variable]


@pytest.fixture(scope="session", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """HEADRACE_HOME for the session; tests that need a fresh one set their own."""
    home = tmp_path_factory.mktemp("headrace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        yield home


@pytest.fixture(autouse=True)
def no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test gave as a secret is none to the next."""
    from headrace.configs import secrets

    monkeypatch.setattr(secrets, "_known", {})


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("table") / "rows.csv", sentences(1200))


@pytest.fixture(scope="session")
def recipe(table: Path) -> Any:
    return tiny_recipe(table)


@pytest.fixture(scope="session")
def prepared(recipe: Any) -> Any:
    from headrace.tasks.data.prepare import prepare

    return prepare(recipe)


@pytest.fixture(scope="session")
def trained(recipe: Any, prepared: Any) -> Any:
    from headrace.tasks.training.train import train

    return train(recipe, prepared)


@pytest.fixture(scope="session")
def exported(recipe: Any, prepared: Any, trained: Any) -> Any:
    from headrace.tasks.export.export import export

    return export(recipe, prepared, trained)


@pytest.fixture(scope="session")
def evaluated(recipe: Any, prepared: Any, exported: Any) -> Any:
    from headrace.tasks.evaluation.evaluate import evaluate

    return evaluate(recipe, prepared, exported)
