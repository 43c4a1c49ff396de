"""A quick look into a registry in SQLite, for scoring: importing MLflow takes two seconds.

Reads MLflow's tables as version 3.17 has them. Where anything is not as expected (another version,
another kind of store, no such model) the answer is None, and MLflow's own client is asked.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

SQLITE = "sqlite:///"
FIND = """
SELECT DISTINCT v.version, coalesce(nullif(v.storage_location, ''), v.source), t.value
FROM model_versions v
JOIN model_version_tags t
  ON t.name = v.name AND t.version = v.version AND t.workspace = v.workspace AND t.key = :tag
LEFT JOIN registered_model_aliases a
  ON a.name = v.name AND a.version = v.version AND a.workspace = v.workspace AND a.alias = :alias
WHERE v.name = :name AND v.current_stage != 'Deleted_Internal'
  AND (v.version = :version OR a.alias = :alias)
"""


@dataclass(frozen=True)
class Stored:
    """A registered version: where its MLflow model lies, and one of its tags."""

    version: str
    place: str
    tag: str


def find(
    uri: str, name: str, tag: str, *, version: str | None = None, alias: str | None = None
) -> Stored | None:
    """The version by its number or alias, with the value of its tag `tag`."""
    file = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not file.is_file():
        return None
    asked = {"name": name, "tag": tag, "alias": alias, "version": version and int(version)}
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(FIND, asked).fetchall()
    except sqlite3.Error:
        return None
    return Stored(*map(str, found[0])) if len(found) == 1 else None
