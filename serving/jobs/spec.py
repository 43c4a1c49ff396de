"""The specification of a scoring job, as it travels from the command line to the worker process.

Imports nothing heavy: whoever starts a job needs no onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..tables import dialect

if TYPE_CHECKING:
    from ..runtime.session import Device

COUNTS = ("chunk_rows", "workers", "threads", "token_budget", "max_row_bytes")


@dataclass(frozen=True)
class JobSpec:
    """Settings of a scoring job; None leaves the choice to the plan or the model.

    Raises InputError for a count below 1, and a share that is not between 0 and 1.
    """

    model: str
    """Path of the model folder."""
    paths: tuple[str, ...]
    """Input files, folders, globs or URLs."""
    output: str
    """A folder, or a URL in an object store."""
    text_column: str | tuple[str, ...] | None = None
    """Column of the texts, or those of the fields that the model joins, in its order."""
    text_pair_column: str | None = None
    """Column of the second texts, for a model of pairs."""
    keep: tuple[str, ...] = ()
    """Input columns to copy to the output."""
    model_version: str | None = None
    """Value of the output column `model_version`; by default the model folder's name."""
    variant: str | None = None
    device: Device = "auto"
    workers: int | None = None
    """Number of batches that run at a time; it does not affect the output bytes."""
    threads: int | None = None
    """Threads of each worker."""
    token_budget: int | None = None
    """Tokens in a batch, padding included."""
    format: str = "parquet"
    partition_by: str | None = None
    """Output column; each of its values gets a folder."""
    chunk_rows: int | None = None
    """Rows per commit."""
    max_rejected: float | None = None
    """Share of rejected rows above which the report warns."""
    max_row_bytes: int | None = None
    """Rows longer than this are rejected as `row_too_large`."""
    csv_safe: bool | None = None
    """In CSV parts, mark cells that a spreadsheet would execute as formulas."""
    retry_rejected: bool = False
    """Score the rejected rows of a started job again; only they may have changed in the input."""
    csv: Mapping[str, Any] = field(default_factory=dict)
    """How files of text are read, as far as stated: settings of a tables.dialect.Dialect."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model's head, such as {"probabilities": True}."""

    def __post_init__(self) -> None:
        for name in COUNTS:
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} must be 1 or more, not {count}")
        share = self.max_rejected
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"max_rejected must be a share between 0 and 1, not {share}")

    @classmethod
    def of(
        cls,
        model: str | Path,
        paths: str | Path | Sequence[str | Path],
        output: str | Path,
        **settings: Any,
    ) -> JobSpec:
        """Build a JobSpec from keyword arguments.

        Settings of a dialect go to `csv`. Other names that are not fields become options of the
        head; None and False are dropped.
        """
        stated = {name: settings.pop(name, None) for name in dialect.NAMES}
        if any(value is not None for value in stated.values()):
            settings["csv"] = dialect.checked(stated)
        path_list = [paths] if isinstance(paths, str | Path) else paths
        spec_fields = {name: value for name, value in settings.items() if name in FIELDS}
        spec_fields["keep"] = tuple(dict.fromkeys(spec_fields.get("keep") or ()))
        if isinstance(text := spec_fields.get("text_column"), list):
            spec_fields["text_column"] = tuple(text) if len(text) > 1 else text[0]
        options = {
            name: value
            for name, value in settings.items()
            if name not in FIELDS and value is not None and value is not False
        }
        return cls(
            model=str(model),
            paths=tuple(map(str, path_list)),
            output=str(output),
            **{"options": options, **spec_fields},
        )

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> JobSpec:
        lists = {name: tuple(content[name]) for name in ("paths", "keep")}
        if isinstance(content["text_column"], list):
            lists["text_column"] = tuple(content["text_column"])
        return cls(**{**content, **lists})


FIELDS = frozenset(spec_field.name for spec_field in fields(JobSpec))
