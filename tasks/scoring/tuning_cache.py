"""A cache, in the workspace, of the settings that run a model fastest on this machine.

One small file for each content of a model folder, processor model, number of cores, version of
onnxruntime and requested device: if one of them differs, the cached settings do not apply.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.serving.runtime.cpu import granted_cores
from headrace.tasks.registry.model_store import content_id
from headrace.tasks.runtime import hardware, workspace
from headrace.tasks.runtime.json_files import digest_of, write_json

if TYPE_CHECKING:
    from headrace.serving.runtime.session import Device

log = logging.getLogger(__name__)

FOLDER = "tuned"
SAMPLE_ROWS, SAMPLE_CHARS = 2_000, 2_000_000
"""Rows from the start of a table to measure with, or characters, whichever limit comes first."""


def load_cached(model: Path, device: Device = "auto") -> dict[str, object]:
    """Return the measured variant, workers, threads and token_budget; empty if not measured."""
    if not (workspace.home() / FOLDER).is_dir():
        return {}  # nothing was ever measured: do not read the whole model for its digest
    try:
        return dict(json.loads(_file(model, device).read_bytes())["setting"])
    except (OSError, ValueError, KeyError):
        return {}


def measure(model: Path, texts: Sequence[Any], device: Device = "auto") -> dict[str, object]:
    """Measure on these texts (some seconds) and cache the result; `load_cached` will return it."""
    from headrace.serving.engine.autotune import fastest

    log.info("score: measuring the fastest settings for this model on this machine")
    setting = asdict(fastest(model, texts, device=device))
    del setting["provider"]  # the device determines it
    log.info("score: %s", ", ".join(f"{name} {value}" for name, value in setting.items()))
    file = _file(model, device)
    file.parent.mkdir(exist_ok=True)
    write_json(file, {"machine": _machine(device), "setting": setting})
    return setting


def _file(model: Path, device: str) -> Path:
    name = f"{content_id(model)}-{digest_of(_machine(device))[:8]}.json"
    return workspace.home() / FOLDER / name


def _machine(device: str) -> dict[str, object]:
    found: dict[str, object] = {
        "processor": hardware.processor(),
        "cores": granted_cores(),
        "device": device,
    }
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
