"""A model folder, opened for scoring: texts in, outputs or columns out, in the same order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import heads
from ..errors import ModelFolderError, ProviderError
from ..heads import WINDOWS, Head
from ..runtime.cpu import granted_cores
from ..runtime.session import Device, device_of, providers_for
from ..text.pooling import open_pool
from ..text.validity import problem
from ..text.windows import Document, Reader, long_text_of
from . import golden, manifest
from .runner import PendingBatches, Runner

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


@dataclass(frozen=True)
class WindowOutputs:
    """The output of a text, and those of its windows: where somebody asked for them."""

    output: Any
    windows: Sequence[Any]
    places: Sequence[tuple[int, int]]
    """Which characters of the text they have."""


@dataclass(frozen=True)
class CollectedOutputs:
    """The collected outputs of texts, and what is known of their windows."""

    outputs: Any
    located: Sequence[WindowOutputs]


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
            keeps_end=kind.TRUNCATION_SIDE == "left",
            offsets=kind.OFFSETS,
            tells_cuts=kind.REPORTS_TRUNCATION,
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
        return golden.difference(
            expected,
            found,
            tolerance=self.variant.tolerance,
            largest_decides=self.head.LARGEST_DECIDES,
        )

    def golden(self, texts: Sequence[str]) -> Any:
        """What golden.py keeps of each text, (n, ...): for classification its logits."""
        options = self.head.GOLDEN
        return self.head.numbers(self.outputs(texts, token_budget=golden.TOKEN_BUDGET, **options))

    def read(
        self, texts: Sequence[str], *, windows: bool = False, **options: Any
    ) -> list[Document]:
        """The texts as the model reads them; with `windows` those know where they stand."""
        return self.reader.read(
            list(map(self.head.text_of, texts)),
            whole=self.head.reads_whole(**options),
            offsets=windows,
        )

    def read_good(
        self, texts: Sequence[Any], errors: list[str | None], **options: Any
    ) -> dict[int, Document]:
        """The documents of the texts without an error, by their places.

        A text without a token, not even a special one, gets the error `empty_text`: there is
        nothing that the model could look at.
        """
        good = [i for i, code in enumerate(errors) if code is None]
        read = dict(zip(good, self.read([texts[i] for i in good], **options), strict=True))
        for i in [i for i, one in read.items() if one.n_tokens == 0]:
            errors[i] = "empty_text"
            del read[i]
        return read

    def start(
        self,
        documents: Sequence[Document],
        *,
        token_budget: int | None = None,
        windows: bool = False,
        **options: Any,
    ) -> PendingDocuments:
        """Have the workers run all documents; `collect` takes what comes of it."""
        rows = [window for document in documents for window in document.windows]
        running = self.runner.start(rows, token_budget=token_budget, **options)
        return PendingDocuments(documents, running, self.head, located=windows)

    def collect(self, outputs: Sequence[Any]) -> Any:
        """One value of all documents' outputs: for classification logits (n, k) float32."""
        if any(isinstance(one, WindowOutputs) for one in outputs):
            return CollectedOutputs(self.head.collect([one.output for one in outputs]), outputs)
        return self.head.collect(outputs)

    def outputs(
        self, texts: Sequence[str], *, token_budget: int | None = None, **options: Any
    ) -> Any:
        """What the model gives for each text: for classification logits (n, k) float32."""
        documents = self.read(texts, **options)
        return self.collect(self.start(documents, token_budget=token_budget, **options).outputs())

    def fields(self, *, windows: bool = False, **options: Any) -> list[pa.Field]:
        """The columns of a scored row. `options`: the head's, such as `probabilities=True`.

        `windows`: one more, with start and end (characters) of each of a text's windows, and what
        would have been decided of that alone.
        """
        own = self.head.fields(**options)
        if not windows:
            return own
        places = [pa.field(name, pa.int32()) for name in ("start", "end")]
        return [*own, pa.field(WINDOWS, pa.list_(pa.struct([*places, *self.head.fields()])))]

    def decode(self, outputs: Any, *, windows: bool = False, **options: Any) -> pa.Table:
        """Collected outputs to the columns of scored rows, the decision first."""
        of_texts = outputs.outputs if isinstance(outputs, CollectedOutputs) else outputs
        columns = self.head.columns(of_texts, **options)
        if windows:
            located = outputs.located if isinstance(outputs, CollectedOutputs) else []
            columns.append(self._of_windows(located))
        schema = pa.schema(self.fields(windows=windows, **options))
        return pa.Table.from_arrays(columns, schema=schema)

    def _of_windows(self, located: Sequence[WindowOutputs]) -> pa.Array:
        each = self.head.alone([output for one in located for output in one.windows])
        names = [field.name for field in self.head.fields()]
        decided = zip(*(column.to_pylist() for column in self.head.columns(each)), strict=True)
        found = [
            [
                {"start": start, "end": end, **dict(zip(names, next(decided), strict=True))}
                for start, end in one.places
            ]
            for one in located
        ]
        return pa.array(found, self.fields(windows=True)[-1].type)

    def score(self, texts: Sequence[str], **options: Any) -> pa.Table:
        """The scored rows of a few texts; tables are what job.py is for."""
        return self.decode(self.outputs(texts, **options), **options)

    def answer(
        self, values: Sequence[Any], **options: Any
    ) -> tuple[pa.Table, list[int], list[str | None]]:
        """The scored rows of those values that are texts, their places, and each value's error."""
        errors = [problem(self.head.text_of(value)) for value in values]
        read = self.read_good(values, errors, **options)
        outputs = self.start([*read.values()], **options).outputs()
        decided = self.decode(self.collect(outputs), **options)
        mark_undecided(errors, [*read], decided)
        return decided, [*read], errors


def mark_undecided(errors: list[str | None], places: Sequence[int], decided: pa.Table) -> None:
    """Give the rows at these places that have no decision the error `model_error`."""
    for i, decision in zip(places, decided.column(0), strict=True):
        if not decision.is_valid:
            errors[i] = "model_error"


class PendingDocuments:
    """Documents at the workers."""

    def __init__(
        self,
        documents: Sequence[Document],
        running: PendingBatches,
        head: Head,
        *,
        located: bool = False,
    ) -> None:
        """`located`: outputs are a WindowOutputs each."""
        # What was run is not kept: a text may be long.
        self._documents: list[Document | None] = [one.without_ids() for one in documents]
        self._running, self._head, self._located = running, head, located

    def outputs(self, on_batch: OnBatch | None = None) -> list[Any]:
        """Wait for all: the head's output of each document, in order.

        Windows of one need not share a batch; they are put together when the last is there.
        """
        counts = [len(one.windows) for one in self._documents if one is not None]
        owners = np.repeat(np.arange(len(counts)), counts)
        firsts = np.cumsum([0, *counts])
        missing = np.array(counts)
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
                    document, self._documents[i] = self._documents[i], None
                    assert document is not None
                    found[i] = self._joined(document, of_windows[here])
                    of_windows[here] = [None] * (firsts[i + 1] - firsts[i])
                    n_done += 1
            if on_batch:
                written = self._head.written(batch.outputs)
                on_batch(n_done, batch.tokens + written, batch.padded_tokens + written)
        return found

    def _joined(self, document: Document, outputs: Sequence[Any]) -> Any:
        joined = self._head.join(document, outputs)
        return WindowOutputs(joined, outputs, document.places()) if self._located else joined

    def cancel(self) -> None:
        self._running.cancel()
