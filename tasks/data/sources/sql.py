"""One SQL query against any database that SQLAlchemy supports.

The result is read from the server in blocks and stored in a file, because only the rows show
whether anything has changed since the last run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from headrace.configs.errors import DataError, UserError
from headrace.configs.schema import SqlSource
from headrace.configs.secrets import resolve
from headrace.serving.digests import file_sha256
from headrace.tasks.data.sources import Block, Rows, Source, first_line

BLOCK_ROWS = 10_000


def open_source(source: SqlSource, columns: list[str], folder: Path) -> Source:
    """Run the query and store its rows in `folder`; anything it changes is rolled back.

    Raises DataError, without the URL's secrets, for a wrong URL, a missing driver or a failing
    query.
    """
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    file = folder / "rows.jsonl"
    try:
        columns = _fetch(resolve(source.url), source.query, file)
    except UserError:
        raise
    except (ArgumentError, NoSuchModuleError, ImportError) as problem:
        reason = first_line(problem)
        raise DataError(f"data.source.url: {reason}; is the driver installed?") from None
    except (SQLAlchemyError, ValueError, TypeError, LookupError, RuntimeError) as problem:
        # Drivers raise errors of their own: for a port that is not a number, an unknown argument.
        # `orig` is the driver's error, without SQLAlchemy's statement and links.
        reason = first_line(getattr(problem, "orig", None) or problem)
        raise DataError(f"data.source: the query failed: {reason}") from None
    digest = {"kind": source.kind, "columns": columns, "rows": file_sha256(file)}
    return Source(digest, {"train": Rows(columns, partial(_read, file, columns))})


def _fetch(url: str, query: str, file: Path) -> list[str]:
    """Write the result as JSON lines, one list per row, block by block; return its columns."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect().execution_options(yield_per=BLOCK_ROWS) as connection:
        answer = connection.execute(sqlalchemy.text(query))
        if not answer.returns_rows:
            raise DataError("data.source.query: the statement returns no rows; use a SELECT")
        with file.open("w", encoding="utf-8") as lines:
            for rows in answer.partitions():
                lines.writelines(json.dumps(list(row), default=_plain) + "\n" for row in rows)
        return list(answer.keys())


def _read(file: Path, columns: list[str]) -> Iterator[Block]:
    with file.open(encoding="utf-8") as lines:
        first_row = 0
        while rows := [json.loads(line) for line in islice(lines, BLOCK_ROWS)]:
            values = map(list, zip(*rows, strict=True))
            yield Block(first_row, dict(zip(columns, values, strict=True)), [None] * len(rows))
            first_row += len(rows)


def _plain(value: object) -> str:
    """Convert bytes, dates and such to text; invalid UTF-8 is detected later, row by row."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    return str(value)
