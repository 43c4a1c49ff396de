"""Names of classes, as Hugging Face `datasets` keeps them beside integers.

A data set has them in its features; a Parquet or Arrow file that `datasets` wrote has the features
in the metadata of its schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.serving.tables.files import File
from headrace.serving.tables.formats import FORMATS, format_of

METADATA = b"huggingface"


def list_features(files: Iterable[File]) -> Mapping[str, Any]:
    """Return the features of the columns that are lists of classes, by column, in any file.

    Columns with a single class keep their integers, which earlier models were trained on.
    """
    found: dict[str, Any] = {}
    for file in files:
        read_schema = FORMATS[format_of(file)].schema
        metadata = (read_schema(file).metadata or {}) if read_schema else {}
        if METADATA not in metadata:
            continue
        from datasets import Features

        features = json.loads(metadata[METADATA]).get("info", {}).get("features") or {}
        kinds = Features.from_dict(features)
        found |= {name: kind for name, kind in kinds.items() if hasattr(_item(kind), "int2str")}
    return found


def named(value: Any, kind: Any) -> object:
    """Return the value with names for classes, also in lists and structs; None for a class of -1.

    `kind`: the data set's feature for this value.
    """
    if hasattr(kind, "int2str"):
        return None if value is None or value < 0 else kind.int2str(value)
    if isinstance(value, list):
        return [named(item, _item(kind)) for item in value]
    if isinstance(value, dict) and isinstance(kind, dict):
        return {name: named(field, kind.get(name)) for name, field in value.items()}
    return value


def _item(kind: Any) -> Any:
    """Return the feature of a list's items; None if the feature is no list."""
    return kind[0] if isinstance(kind, list) else getattr(kind, "feature", None)
