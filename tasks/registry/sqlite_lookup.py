"""Fast lookup in a registry in SQLite, for scoring: importing MLflow takes two seconds.

Reads the tables of MLflow 3.17. If anything is not as expected (another version, another kind of
store, no such model), the answer is None, and the caller asks MLflow's own client.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SQLITE = "sqlite:///"
FIND = """
SELECT DISTINCT v.version, coalesce(nullif(v.storage_location, ''), v.source), t.value, p.value
FROM model_versions v
JOIN model_version_tags t
  ON t.name = v.name AND t.version = v.version AND t.workspace = v.workspace AND t.key = :tag
LEFT JOIN registered_model_aliases a
  ON a.name = v.name AND a.version = v.version AND a.workspace = v.workspace AND a.alias = :alias
LEFT JOIN params p
  ON p.run_uuid = v.run_id AND p.key LIKE :tag || '.m-%'
  AND instr(v.source, substr(p.key, length(:tag) + 2))
WHERE v.name = :name AND v.current_stage != 'Deleted_Internal'
  AND (v.version = :version OR a.alias = :alias)
"""


@dataclass(frozen=True)
class Stored:
    """A registered version: the location of its MLflow model, and one of its tags."""

    version: str
    place: str
    tag: str
    recorded: str | None
    """The parameter `TAG.<id of the logged model>` of the run that made it."""


def has(uri: str, name: str) -> bool | None:
    """True if a model of that name is registered; None if this lookup cannot tell."""
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return False
    rows = _asked(uri, "SELECT count(*) FROM registered_models WHERE name = :name", {"name": name})
    return None if rows is None else bool(rows[0][0])


def find(
    uri: str, name: str, tag: str, *, version: str | None = None, alias: str | None = None
) -> Stored | None:
    """Return a version by its number or alias, with the value of its tag `tag`, or None."""
    parameters = {"name": name, "tag": tag, "alias": alias, "version": version and int(version)}
    rows = _asked(uri, FIND, parameters)
    if rows is None or len(rows) != 1:
        return None
    number, place, value, recorded = rows[0]
    return Stored(str(number), str(place), str(value), recorded)


def _asked(uri: str, query: str, values: Mapping[str, str | int | None]) -> list[Any] | None:
    file = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.Error:
        return None
