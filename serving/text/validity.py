"""The one rule of what a text is, for jobs, training rows, requests and Spark.

The reason codes are those of readers.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def problem(value: Any) -> str | None:
    """The reason code of a value that no model can read; None for a text."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "null_text"  # not a number is how pandas writes a null
    if not isinstance(value, str):
        # Bytes that were no UTF-8 are what is left of such a text in a table.
        return "invalid_utf8" if isinstance(value, bytes) else "wrong_type"
    if not value or value.isspace():
        return "empty_text"
    return None if is_unicode(value) else "invalid_utf8"


def is_unicode(value: str) -> bool:
    """True if it can be written as UTF-8, and read by C: it has no lone surrogate and no NUL."""
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
