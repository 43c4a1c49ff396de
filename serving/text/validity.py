"""The only definition of a valid text, for jobs, training rows, requests and Spark.

readers.py lists the reason codes.
"""

from __future__ import annotations

import numpy as np


def problem(value: object) -> str | None:
    """Return the reason code of a value that no model can take; None for a valid text."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "null_text"  # pandas represents a null as NaN
    if not isinstance(value, str):
        # A table's text that is not UTF-8 arrives as bytes.
        return "invalid_utf8" if isinstance(value, bytes) else "wrong_type"
    if not value or value.isspace():
        return "empty_text"
    return None if is_unicode(value) else "invalid_utf8"


def is_unicode(value: str) -> bool:
    """True if UTF-8 can encode the text and C can read it: no lone surrogate and no NUL."""
    if "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
