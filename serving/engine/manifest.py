"""manifest.json: the contents of a model folder and how to run the model.

model/
  manifest.json
  tokenizer.json
  golden.json                     32 real rows; each variant's outputs for them
  pooling.onnx                    only if texts are split into windows and their pooling is learned
  training_texts.npy              hashes of the training texts (tasks/data/training_texts.py)
  calibration.json                accuracy by share decided (tasks/metrics/selective.py)
  fp32/model.onnx, fused/...      one folder per variant that passed the parity check
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from .. import folder_checks
from ..atomic import write_text
from ..errors import ModelFolderError, NewerFormatError
from ..text.inputs import TEXT

if TYPE_CHECKING:
    from ..heads import Settings

FORMAT = 3
"""Format of a model folder. Format 2 added `long_text` and pooling.onnx: texts in windows. Format 3
added the calibration of probabilities to `head`, `abstain_below` to `score`, calibration.json, and
`inputs`: rows of more than one text.

Raise it for every change that an older Headrace cannot read or would misread, such as a new field:
`read` then tells its user to update. Models of all earlier formats must keep loading.
"""
FILE = "manifest.json"


class Lineage(TypedDict, total=False):
    """The recipe and rows that a model was made from; empty if no recipe made it."""

    recipe: str
    """Name of the recipe."""
    prepared: str
    """Digest of the prepared rows."""
    trained: str
    """Digest of the trained model."""
    salt: str
    """Salt of the splits."""
    test_share: float


@dataclass(frozen=True)
class Variant:
    """One ONNX graph that agreed with PyTorch, with its measurements."""

    name: str
    file: str
    """Path of the graph inside the model folder."""
    providers: tuple[str, ...]
    """onnxruntime execution providers it may run on, best first."""
    disabled_optimizers: tuple[str, ...] = ()
    """onnxruntime graph optimizations that measurably hurt this variant."""
    tolerance: float = 1e-3
    """Largest difference from its own golden outputs that still counts as equal."""
    size_bytes: int = 0
    measured: Mapping[str, object] = field(default_factory=dict)
    """tokens_per_second, max_logit_difference, agreement, metric, device, ..."""


@dataclass(frozen=True)
class Manifest:
    objective: str
    """Selects the head: a module in serving/heads, or an entry point of another package."""
    max_length: int
    """Tokens of the longest input, special tokens included."""
    pad_id: int
    default: str
    """Name of the variant used when the caller names none."""
    variants: tuple[Variant, ...]
    """Fastest first; the next one replaces a variant that fails."""
    head: Settings = field(default_factory=dict)
    """The head's settings: {"labels": [...]} for classification."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Profile of the training data (label shares, length histogram), for drift."""
    training: Lineage = field(default_factory=Lineage)
    score: Mapping[str, Any] = field(default_factory=dict)
    """Defaults for scoring jobs: {"chunk_rows": ..., "max_rejected": ..., "text_column": ...}; in
    place of `text_column`, `columns` of a model with several inputs: input to column."""
    long_text: Mapping[str, object] = field(default_factory=dict)
    """Treatment of longer texts, a windows.LongText; if empty, they are truncated."""
    inputs: Mapping[str, object] = field(default_factory=dict)
    """What a row consists of, a text/inputs.Inputs; if empty, of one text."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Variants that the export tried and rejected, with the reason."""
    format: int = FORMAT

    @property
    def options(self) -> dict[str, object]:
        """The head's options that a job and a request have unless the caller sets them."""
        abstain_below = self.score.get("abstain_below")
        return {"min_probability": abstain_below} if abstain_below else {}

    @property
    def columns(self) -> dict[str, str]:
        """The column of each of the model's inputs in its training table."""
        return dict(self.score.get("columns") or {TEXT: self.score.get("text_column", TEXT)})

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(v.name for v in self.variants)
        reason = f" ({self.dropped[name]})" if name in self.dropped else ""
        raise ModelFolderError(f"this model has no variant {name!r}{reason}; available: {names}")


def write(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json to a temporary file and rename it into place."""
    content = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
    write_text(folder / FILE, content + "\n")


def read(folder: Path) -> Manifest:
    """Read and check a model folder's manifest.

    Raises ModelFolderError if the folder holds no manifest that this version can read, or if a path
    leads outside the folder.
    """
    file = folder / FILE
    if not file.is_file():
        raise ModelFolderError(f"{folder} is not a model folder: {FILE} is missing")
    folder_checks.check_folder(folder)
    try:
        content = json.loads(folder_checks.read_bytes(file))
        version = int(content["format"])
        if version > FORMAT:
            raise NewerFormatError(
                f"{folder} has model format {version}; this version reads formats up to {FORMAT}; "
                "update Headrace"
            )
        variants = tuple(_variant(folder, fields) for fields in content.pop("variants"))
        return Manifest(**content, variants=variants)
    except ModelFolderError:
        raise
    except (ValueError, KeyError, TypeError) as problem:
        raise ModelFolderError(f"{file} cannot be read: {problem}") from problem


def _variant(folder: Path, fields: dict[str, Any]) -> Variant:
    lists = {name: tuple(fields[name]) for name in ("providers", "disabled_optimizers")}
    folder_checks.check_name(folder, fields["file"], said_by=FILE)
    return Variant(**{**fields, **lists})
