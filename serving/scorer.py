"""A model folder, opened for scoring: texts in, outputs or columns out, in the same order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from . import golden, heads, manifest
from .cores import granted_cores
from .documents import Document, Reader, long_text_of
from .errors import ModelFolderError, ProviderError
from .heads import Head
from .pooling import open_pool
from .runner import Runner, Running
from .session import Device, device_of, providers_for

log = logging.getLogger(__name__)

HALF = ("fp16", "fp16_plain")
"""The variants that compute in half precision."""
OnBatch = Callable[[int, int, int], None]
"""Gets the texts that are done with a batch, and the tokens that were read, without and with
padding, and written."""


def defaults(provider: str, head: type[Head]) -> dict[str, int]:
    """How a Runner runs on a provider when nothing else is asked for."""
    device = device_of(provider)
    workers = granted_cores() if device == "cpu" else 1
    return {"workers": workers, "threads": 1, "token_budget": head.TOKEN_BUDGETS[device]}


class Scorer:
    """One variant of a model on one device.

    `.manifest`, `.variant` (a manifest.Variant), `.provider`, `.runner`, `.folder` say what was
    opened.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        variant: str | None = None,
        device: Device = "auto",
        workers: int | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        check: bool = True,
    ) -> None:
        """Open the model's default variant, or the one asked for.

        `workers` batches run at a time (on a CPU by default as many as there are cores), each on
        `threads` threads (1).
        `check`: compare its outputs with the golden ones first. A default that fails makes room
        for the next variant, with a warning; a variant asked for by name is never replaced.
        Raises ModelFolderError when nothing is left or the folder is not whole, ProviderError
        when the device cannot be had or no variant is made for it.
        """
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        kind = heads.get(self.manifest.objective)
        long_text = long_text_of(self.manifest.long_text)
        self.reader = Reader(
            self.folder / "tokenizer.json",
            max_length=self.manifest.max_length,
            long_text=long_text,
            keeps_end=kind.KEEPS_END,
            offsets=kind.OFFSETS,
            tells_cuts=kind.TELLS_CUTS,
        )
        self.head = kind(
            self.manifest.head,
            pad_id=self.manifest.pad_id,
            tokenizer=self.reader.tokenizer,
            pool=open_pool(long_text, self.folder),
        )
        how = {"workers": workers, "threads": threads, "token_budget": token_budget}
        self._open(self._candidates(variant, device), how, check=check)

    def _candidates(self, name: str | None, device: Device) -> list[tuple[manifest.Variant, str]]:
        """Variants to try, each with its provider, the wanted one first."""
        wanted = self.manifest.variant(name or self.manifest.default)
        others = [] if name else [v for v in self.manifest.variants if v != wanted]
        allowed = providers_for(device)
        candidates = []
        for variant in [wanted, *others]:
            provider = next((p for p in allowed if p in variant.providers), None)
            if provider:
                candidates.append((variant, provider))
        if not candidates:
            made_for = {v.name: ", ".join(v.providers) for v in [wanted, *others]}
            raise ProviderError(
                f"nothing in this model runs on {' or '.join(allowed)}: it has "
                + "; ".join(f"{v} for {providers}" for v, providers in made_for.items())
            )
        return candidates

    def _open(
        self,
        candidates: list[tuple[manifest.Variant, str]],
        how: dict[str, int | None],
        *,
        check: bool,
    ) -> None:
        """Take the first candidate that computes here what it computed where it was exported."""
        problems: list[str] = []
        for variant, provider in candidates:
            if problems:
                log.warning("%s; trying %s", problems[-1], variant.name)
            self.variant, self.provider = variant, provider
            self.runner = Runner(
                self.folder / variant.file,
                self.head,
                provider=provider,
                max_length=self.manifest.max_length,
                half=variant.name in HALF,
                disabled_optimizers=variant.disabled_optimizers,
                **(
                    defaults(provider, type(self.head))
                    | {name: n for name, n in how.items() if n is not None}
                ),
            )
            problem = self._golden_difference() if check else None
            if problem is None:
                return
            problems.append(f"variant {variant.name} fails on {provider}: {problem}")
        raise ModelFolderError(f"no variant is left to score with: {'; '.join(problems)}")

    def _golden_difference(self) -> str | None:
        texts, outputs = golden.read(self.folder)
        if self.variant.name not in outputs:
            return f"{golden.FILE} has no outputs of it"
        found = self.golden(texts)
        expected = outputs[self.variant.name]
        return golden.difference(expected, found, tolerance=self.variant.tolerance)

    def golden(self, texts: Sequence[str]) -> Any:
        """What golden.py keeps of each text, (n, ...): for classification its logits."""
        options = self.head.GOLDEN
        return self.head.numbers(self.outputs(texts, token_budget=golden.TOKEN_BUDGET, **options))

    def read(self, texts: Sequence[str], **options: Any) -> list[Document]:
        """The texts as the model reads them."""
        return self.reader.read(texts, whole=self.head.reads_whole(**options))

    def start(
        self, documents: Sequence[Document], *, token_budget: int | None = None, **options: Any
    ) -> Reading:
        """Have the workers run all documents; `collect` takes what comes of it."""
        rows = [window for document in documents for window in document.windows]
        running = self.runner.start(rows, token_budget=token_budget, **options)
        return Reading(documents, running, self.head)

    def collect(self, outputs: Sequence[Any]) -> Any:
        """One value of all documents' outputs: for classification logits (n, k) float32."""
        return self.head.collect(outputs)

    def outputs(
        self, texts: Sequence[str], *, token_budget: int | None = None, **options: Any
    ) -> Any:
        """What the model gives for each text: for classification logits (n, k) float32."""
        documents = self.read(texts, **options)
        return self.collect(self.start(documents, token_budget=token_budget, **options).outputs())

    def fields(self, **options: Any) -> list[pa.Field]:
        """The columns of a scored row. `options`: the head's, such as `probabilities=True`."""
        return self.head.fields(**options)

    def decode(self, outputs: Any, **options: Any) -> pa.Table:
        """Collected outputs to the columns of scored rows, the decision first."""
        columns = self.head.columns(outputs, **options)
        return pa.Table.from_arrays(columns, schema=pa.schema(self.fields(**options)))

    def score(self, texts: Sequence[str], **options: Any) -> pa.Table:
        """The scored rows of a few texts; tables are what job.py is for."""
        return self.decode(self.outputs(texts, **options), **options)


class Reading:
    """Documents at the workers."""

    def __init__(self, documents: Sequence[Document], running: Running, head: Head) -> None:
        self._documents, self._running, self._head = documents, running, head

    def outputs(self, on_batch: OnBatch | None = None) -> list[Any]:
        """Wait for all: the head's output of each document, in order.

        Windows of one need not share a batch; they are put together when the last is there.
        """
        owners = [i for i, one in enumerate(self._documents) for _ in one.windows]
        firsts = np.cumsum([0, *(len(one.windows) for one in self._documents)])
        missing = np.diff(firsts)
        of_windows: list[Any] = [None] * len(owners)
        found: list[Any] = [None] * len(self._documents)
        for batch in self._running.batches():
            n_done = 0
            for row, output in zip(batch.rows, batch.outputs, strict=True):
                i = owners[row]
                of_windows[row] = output
                missing[i] -= 1
                if not missing[i]:
                    here = slice(firsts[i], firsts[i + 1])
                    found[i] = self._head.join(self._documents[i], of_windows[here])
                    of_windows[here] = [None] * (firsts[i + 1] - firsts[i])
                    n_done += 1
            if on_batch:
                written = self._head.written(batch.outputs)
                on_batch(n_done, batch.tokens + written, batch.padded_tokens + written)
        return found

    def cancel(self) -> None:
        self._running.cancel()
