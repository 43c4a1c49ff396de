"""PyTorch's answers, which exported graphs are compared with, and the rows to compare on.

Imports torch, transformers and datasets only inside functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.configs.schema import Recipe
from headrace.serving import heads
from headrace.serving.arrays import Array, Ids, TokenRow
from headrace.serving.engine.timing import sample_by_length
from headrace.serving.runtime.batching import feeds, ids_of
from headrace.serving.text.inputs import Row
from headrace.serving.text.pooling import Pool
from headrace.serving.text.windows import Document
from headrace.tasks import objectives
from headrace.tasks.data import windowing
from headrace.tasks.export.parity import Run
from headrace.tasks.models.token_types import TOKEN_TYPES, reads_token_types

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from headrace.tasks.runtime.facts import Prepared, Trained

    TorchPool = Callable[[Tensor], Tensor]
    """A pool of tasks/models/window_pooling.py; an nn.Module if it was learned."""

MAX_WINDOWED_TOKENS = 1_000_000
"""Limit over all texts that are read in windows: minutes of PyTorch on two cores."""


@dataclass(frozen=True)
class Rows:
    """Rows of one split, in the split's order."""

    texts: list[Row]
    """What the model reads of each row (serving/text/inputs.py)."""
    documents: list[Document]
    targets: list[object]

    @property
    def windows(self) -> list[TokenRow]:
        """Every window, each (length,); a text that is not split is one window."""
        return [window for document in self.documents for window in document.windows]

    @property
    def ids(self) -> list[Ids]:
        """Token ids of every window, each (length,)."""
        return [ids_of(window) for window in self.windows]


def load_model(
    recipe: Recipe, prepared: Prepared, trained: Trained, device: str
) -> PreTrainedModel:
    """Load the trained model for inference in fp32."""
    import transformers

    from headrace.tasks.models import feature_head

    transformers.utils.logging.disable_progress_bar()
    objective = objectives.get(recipe.objective)
    model = objective.load_model(trained.path / "model", prepared.facts["head"])
    network: PreTrainedModel
    network = feature_head.load(model.float().eval().to(device), trained.path / "model")
    return network


def load_reader(
    recipe: Recipe, prepared: Prepared, trained: Trained, device: str
) -> tuple[PreTrainedModel, TorchPool | None]:
    """Load the trained model of single windows, and its pool; None if windows are not pooled."""
    model = load_model(recipe, prepared, trained, device)
    if not recipe.long_text.in_windows or objectives.get(recipe.objective).TOKEN_LABELS:
        return model, None
    from headrace.tasks.models import window_pooling

    document_model = (
        window_pooling.load(model, recipe.long_text.pool, trained.path / "model").eval().to(device)
    )
    return document_model.model, document_model.pool


def as_pool(pool: TorchPool | None) -> Pool | None:
    """Wrap a PyTorch pool as a serving Pool."""
    import torch

    if pool is None:
        return None
    if isinstance(pool, torch.nn.Module):
        pool.cpu()

    def run_pool(outputs: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(pool(torch.from_numpy(outputs)).numpy())

    return run_pool


def in_bf16(model: PreTrainedModel) -> PreTrainedModel:
    import torch

    return copy.deepcopy(model).to(torch.bfloat16)


def runner(model: PreTrainedModel, *, pad_id: int) -> Run:
    """Return a function that runs one batch: each row's logits as float32."""
    import torch

    left_out = () if reads_token_types(model) else (TOKEN_TYPES,)

    def run(rows: Sequence[TokenRow]) -> list[Array]:
        inputs = {
            name: torch.from_numpy(array).to(model.device)
            for name, array in feeds(rows, pad_id=pad_id).items()
            if name not in left_out
        }
        with torch.inference_mode():
            logits = model(**inputs).logits
        outputs = logits.float().cpu().numpy()
        if outputs.ndim == 2:
            return list(outputs)
        return [output[: len(row)] for row, output in zip(rows, outputs, strict=True)]  # per token

    return run


def read_rows(recipe: Recipe, prepared: Prepared, split: str, n_rows: int) -> Rows:
    """Read at most `n_rows` rows of a split, of every length.

    Of texts that are read in windows, at most about MAX_WINDOWED_TOKENS tokens are read.
    """
    from datasets import load_from_disk

    dataset = load_from_disk(str(prepared.path / split)).with_format("arrow")
    lengths = np.asarray(dataset[:]["length"])
    indices = np.sort(sample_by_length(lengths, n_rows))
    if recipe.long_text.in_windows and (total := lengths[indices].sum()) > MAX_WINDOWED_TOKENS:
        indices = np.sort(
            sample_by_length(lengths, max(1, int(len(indices) * MAX_WINDOWED_TOKENS / total)))
        )
    table = dataset[indices]
    texts = table["text"].to_pylist()
    offsets = heads.get(recipe.objective).OFFSETS
    reader = windowing.reader(recipe, prepared.path, offsets=offsets)
    if recipe.long_text.in_windows or offsets or reader.inputs.pair or reader.inputs.features:
        documents = reader.read(texts)
    else:
        id_lists = table["input_ids"].to_pylist()
        documents = [Document([np.asarray(ids, dtype=np.int64)]) for ids in id_lists]
    return Rows(texts, documents, targets=table["labels"].to_pylist())


def pad_id(prepared: Prepared) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(prepared.path / "tokenizer").pad_token_id)
