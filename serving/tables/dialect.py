"""The encoding and dialect of a file of text: how its bytes become the cells of a table.

A user states some of the settings, in words that fit on a command line (`tab`, `none`); a model
brings others from its recipe; the file's ending decides the rest. settle.py compares the result
with the file. Imports nothing heavy.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InputError

NONE = "none"
DELIMITERS = {
    "tab": "\t", "\\x01": "\1", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|",
    "blank": " ",
}  # fmt: skip
"""Words for a delimiter, for shells and YAML."""


@dataclass(frozen=True)
class Dialect:
    """Encoding and dialect of a text file; for JSON only the encoding applies.

    Raises InputError for an unknown encoding, and for characters that contradict each other.
    """

    encoding: str = "utf-8"
    """Name of a text encoding of Python's codecs. A byte order mark in the file always wins."""
    delimiter: str = ","
    quote: str | None = '"'
    """Character around a field that may hold delimiters and line ends; None: no quoting."""
    escape: str | None = None
    """Character in front of a quote or of itself in a field; None: a quote is doubled instead."""
    header: bool = True
    """True if the first line has the column names. If not, they are column_1, column_2, ..."""
    skip_blanks: bool = False
    """True if blanks behind a delimiter do not belong to the field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", encoding_name(self.encoding))
        for name in ("delimiter", "quote", "escape"):
            _check_character(name, getattr(self, name))
        if self.delimiter in (self.quote, self.escape) or (
            self.quote is not None and self.quote == self.escape
        ):
            raise InputError(
                f"delimiter {self.delimiter!r}, quote {self.quote!r} and escape {self.escape!r} "
                "must differ; a quote that is doubled needs no escape"
            )

    def with_stated(self, stated: Mapping[str, object]) -> Dialect:
        """Return this dialect with the settings that `checked` returned."""
        return replace(self, **stated)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


NAMES = tuple(field.name for field in fields(Dialect))
"""Names of the settings, as options and in a recipe."""


def checked(stated: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings that are stated (None is not), in the values that a Dialect has.

    A delimiter may be a word, `none` stands for no quote and no escape. Raises InputError for a
    value that is not valid.
    """
    values: dict[str, Any] = {}
    for name, value in stated.items():
        if name not in NAMES:
            raise InputError(f"unknown setting {name!r} of a table; known: {', '.join(NAMES)}")
        if value is None:
            continue
        if name == "delimiter":
            value = DELIMITERS.get(str(value).lower(), value)
        elif name in ("quote", "escape"):
            value = None if str(value).lower() in ("", NONE) else value
        values[name] = value
    Dialect(**{"delimiter": "\x1f", **values})
    if "encoding" in values:
        values["encoding"] = encoding_name(str(values["encoding"]))
    return values


def differences(dialect: Dialect, usual: Dialect) -> dict[str, Any]:
    """Return the settings that differ from the usual ones, in a user's words."""
    return {
        name: spelled(value)
        for name, value in dialect.to_json().items()
        if value != getattr(usual, name)
    }


def spelled(value: object) -> object:
    """Return a setting's value as a user states it."""
    if value is None:
        return NONE
    return next(
        (word for word, one in DELIMITERS.items() if one == value and not one.isprintable()), value
    )


def as_options(settings: Mapping[str, object]) -> str:
    """Format settings as options of the command line, such as `--delimiter ';' --no-header`."""
    options = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = str(spelled(value))
            options.append(f"--{flag} {shlex.quote(text)}")
    return " ".join(options)


def encoding_name(name: str) -> str:
    """Return one name for all names of an encoding. Raises InputError if Python has none such."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError, TypeError):
        found = None
    if found is None or not found._is_text_encoding:
        raise InputError(
            f"unknown encoding {name!r}; examples: utf-8, windows-1252, utf-16, shift_jis"
        )
    canonical = re.sub(r"^cp(125\d)$", r"windows-\1", found.name)
    return "utf-8" if canonical == "utf-8-sig" else canonical


def _check_character(name: str, value: object) -> None:
    if value is None and name != "delimiter":
        return
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
        allowed = "" if name == "delimiter" else f", or {NONE!r}"
        raise InputError(f"{name} must be one character{allowed}, not {value!r}")
