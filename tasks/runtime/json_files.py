"""JSON: digests of values, and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from headrace.serving.atomic import write_text


def digest_of(value: object) -> str:
    """Return 16 hex characters of the sha256 of a JSON value; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Write JSON to a temporary file and rename it into place."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON in a file; None if the file is missing or incomplete."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
