"""Open a model folder for scoring: texts in, outputs or columns out, in the same order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import heads
from ..arrays import Array
from ..errors import ModelFolderError, ProviderError
from ..heads import UNSURE, WINDOWS, Head
from ..runtime.cpu import granted_cores
from ..runtime.session import Device, device_of, providers_for
from ..text.inputs import Row, inputs_of
from ..text.parts import open_reader
from ..text.pooling import open_pool
from ..text.windows import Document, Reader, long_text_of
from . import golden, manifest
from .runner import PendingBatches, Runner

log = logging.getLogger(__name__)

HALF = ("fp16", "fp16_plain")
"""Variants that compute in half precision."""
OnBatch = Callable[[int, int, int], None]
"""Called with the number of texts that a batch completed and its tokens, without and with padding;
both token counts include generated tokens."""


def defaults(provider: str, head: type[Head]) -> dict[str, int]:
    """Return a Runner's default workers, threads and token budget on a provider."""
    device = device_of(provider)
    # Two on one GPU fill each other's gaps: 32% more tokens a second (H100, MiniLM in fp16).
    workers = {"cpu": granted_cores(), "cuda": 2, "tensorrt": 1}[device]
    return {"workers": workers, "threads": 1, "token_budget": head.TOKEN_BUDGETS[device]}


@dataclass(frozen=True)
class WindowOutputs:
    """The output of a text and those of its windows, if the caller asked for windows."""

    output: object
    windows: Sequence[object]
    places: Sequence[tuple[int, int]]
    """Each window's (start, end) in characters of the text."""


@dataclass(frozen=True)
class CollectedOutputs:
    """The collected outputs of texts, together with those of their windows."""

    outputs: object
    located: Sequence[WindowOutputs]


class Scorer:
    """One variant of a model on one device.

    `.manifest`, `.variant` (a manifest.Variant), `.provider`, `.runner`, `.inputs` and `.folder`
    describe the opened model. Its rows are texts, or what text/inputs.py says: {"text": ...,
    "text_pair": ...} for a pair.
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
        """Open the model's default variant, or the named one.

        `workers` batches run at a time (on a CPU by default one per core), each on `threads`
        threads (by default 1).
        `check`: compare the variant's outputs with the golden ones first. If the default fails, the
        next variant replaces it, with a warning; a named variant is never replaced.
        Raises ModelFolderError if no variant is left or the folder is incomplete, ProviderError if
        the device is unavailable or no variant is made for it.
        """
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        kind = heads.get(self.manifest.objective)
        long_text = long_text_of(self.manifest.long_text)
        self.inputs = inputs_of(self.manifest.inputs)
        self.reader: Reader = open_reader(
            self.folder / "tokenizer.json",
            max_length=self.manifest.max_length,
            long_text=long_text,
            inputs=self.inputs,
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
        options = {"workers": workers, "threads": threads, "token_budget": token_budget}
        self._open(self._candidates(variant, device), options, check=check)

    def _candidates(self, name: str | None, device: Device) -> list[tuple[manifest.Variant, str]]:
        """Variants to try, each with its provider; the wanted one first."""
        choice = self.manifest.variant(name or self.manifest.default)
        others = [] if name else [v for v in self.manifest.variants if v != choice]
        device_providers = providers_for(device)
        candidates = []
        for variant in [choice, *others]:
            provider = next((p for p in device_providers if p in variant.providers), None)
            if provider:
                candidates.append((variant, provider))
        if not candidates:
            providers_of = {v.name: ", ".join(v.providers) for v in [choice, *others]}
            raise ProviderError(
                f"no variant of this model runs on {' or '.join(device_providers)}; available: "
                + "; ".join(f"{v} on {providers}" for v, providers in providers_of.items())
            )
        return candidates

    def _open(
        self,
        candidates: list[tuple[manifest.Variant, str]],
        options: dict[str, int | None],
        *,
        check: bool,
    ) -> None:
        """Take the first candidate; with `check`, the first that reproduces its golden outputs."""
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
                    | {name: n for name, n in options.items() if n is not None}
                ),
            )
            problem = self._golden_difference() if check else None
            if problem is None:
                return
            problems.append(f"variant {variant.name} failed on {provider}: {problem}")
        raise ModelFolderError(f"no usable variant: {'; '.join(problems)}")

    def _golden_difference(self) -> str | None:
        texts, outputs = golden.read(self.folder)
        if self.variant.name not in outputs:
            return f"{golden.FILE} has no outputs for it"
        actual = self.golden(texts)
        expected = outputs[self.variant.name]
        return golden.difference(
            expected,
            actual,
            tolerance=self.variant.tolerance,
            largest_decides=self.head.LARGEST_DECIDES,
        )

    def golden(self, texts: Sequence[Row]) -> Array:
        """Return the golden outputs of each text, (n, ...): for classification its logits."""
        options = self.head.GOLDEN
        return self.head.numbers(self.outputs(texts, token_budget=golden.TOKEN_BUDGET, **options))

    def row_of(self, value: object) -> Row:
        """Return a caller's value as a row. Raises InputError if it lacks one of several inputs."""
        row: Row = self.inputs.row(self.head.text_of(value))
        return row

    def read(
        self, texts: Sequence[object], *, windows: bool = False, **options: object
    ) -> list[Document]:
        """Tokenize the rows into documents; with `windows` they can locate each window."""
        return self.reader.read(
            list(map(self.row_of, texts)),
            whole=self.head.reads_whole(**options),
            offsets=windows,
        )

    def read_good(
        self,
        texts: Sequence[object],
        errors: list[str | None],
        *,
        windows: bool = False,
        **options: object,
    ) -> dict[int, Document]:
        """Return the documents of the texts without an error, by index.

        A text without any token, not even a special one, gets the error `empty_text`: the model
        would have no input.
        """
        indices = [i for i, code in enumerate(errors) if code is None]
        good_documents = self.read([texts[i] for i in indices], windows=windows, **options)
        documents = dict(zip(indices, good_documents, strict=True))
        for i in [i for i, document in documents.items() if document.n_tokens == 0]:
            errors[i] = "empty_text"
            del documents[i]
        return documents

    def start(
        self,
        documents: Sequence[Document],
        *,
        token_budget: int | None = None,
        windows: bool = False,
        **options: object,
    ) -> PendingDocuments:
        """Queue all documents for the workers; `collect` takes their outputs."""
        rows = [window for document in documents for window in document.windows]
        batches = self.runner.start(rows, token_budget=token_budget, **options)
        return PendingDocuments(documents, batches, self.head, located=windows)

    def collect(self, outputs: Sequence[object]) -> object:
        """Combine all documents' outputs: for classification into logits (n, k) float32."""
        located = [output for output in outputs if isinstance(output, WindowOutputs)]
        if located:
            assert len(located) == len(outputs), "some outputs come without those of their windows"
            return CollectedOutputs(
                self.head.collect([output.output for output in located]), located
            )
        return self.head.collect(outputs)

    def outputs(
        self,
        texts: Sequence[Row],
        *,
        token_budget: int | None = None,
        windows: bool = False,
        **options: object,
    ) -> Any:
        """Run the texts and collect their outputs: for classification logits (n, k) float32."""
        documents = self.read(texts, windows=windows, **options)
        pending_documents = self.start(
            documents, token_budget=token_budget, windows=windows, **options
        )
        return self.collect(pending_documents.outputs())

    def fields(self, *, windows: bool = False, **options: object) -> list[pa.Field]:
        """The columns of a scored row. `options`: the head's, such as `probabilities=True`.

        `windows`: add a column with the start and end (in characters) of each of a text's windows
        and the decision for that window alone.
        """
        head_fields = self.head.fields(**options)
        if not windows:
            return head_fields
        places = [pa.field(name, pa.int32()) for name in ("start", "end")]
        return [
            *head_fields,
            pa.field(WINDOWS, pa.list_(pa.struct([*places, *self.head.fields()]))),
        ]

    def decode(self, outputs: object, *, windows: bool = False, **options: object) -> pa.Table:
        """Turn collected outputs into the columns of scored rows, the decision first."""
        text_outputs = outputs.outputs if isinstance(outputs, CollectedOutputs) else outputs
        columns = self.head.columns(text_outputs, **options)
        if windows:
            window_outputs = outputs.located if isinstance(outputs, CollectedOutputs) else []
            columns.append(self._of_windows(window_outputs))
        schema = pa.schema(self.fields(windows=windows, **options))
        return pa.Table.from_arrays(columns, schema=schema)

    def _of_windows(self, outputs: Sequence[WindowOutputs]) -> pa.Array:
        window_outputs = self.head.alone(
            [window for output in outputs for window in output.windows]
        )
        names = [field.name for field in self.head.fields()]
        decisions = zip(
            *(column.to_pylist() for column in self.head.columns(window_outputs)), strict=True
        )
        values = [
            [
                {"start": start, "end": end, **dict(zip(names, next(decisions), strict=True))}
                for start, end in output.places
            ]
            for output in outputs
        ]
        return pa.array(values, self.fields(windows=True)[-1].type)

    def score(self, texts: Sequence[Row], **options: Any) -> pa.Table:
        """Score a few rows, each a text or as `Scorer` says; for tables see jobs/job.py."""
        return self.decode(self.outputs(texts, **options), **options)

    def answer(
        self, values: Sequence[object], **options: Any
    ) -> tuple[pa.Table, list[int], list[str | None]]:
        """Score the valid values; return their scored rows, indices, and each value's error.

        Raises InputError for wrong options.
        """
        self.head.check(options, pools=self.head.pool is not None)
        errors = [self.inputs.problem(self.head.text_of(value)) for value in values]
        documents = self.read_good(values, errors, **options)
        outputs = self.start([*documents.values()], **options).outputs()
        table = self.decode(self.collect(outputs), **options)
        mark_undecided(errors, [*documents], table, self.head)
        return table, [*documents], errors


def mark_undecided(
    errors: list[str | None], places: Sequence[int], table: pa.Table, head: Head
) -> None:
    """Set the error of rows without a decision: `unsure` if it was withheld, else `model_error`.

    `places`: the rows' indices.
    """
    withheld = head.withheld(table)
    for row in np.flatnonzero(pc.is_null(table.column(0)).to_numpy()).tolist():
        errors[places[row]] = UNSURE if withheld[row] else "model_error"


class PendingDocuments:
    """Documents queued for the workers or being run by them."""

    def __init__(
        self,
        documents: Sequence[Document],
        batches: PendingBatches,
        head: Head,
        *,
        located: bool = False,
    ) -> None:
        """`located`: each output is a WindowOutputs."""
        # The token ids are not kept: a text may be long.
        self._documents: list[Document | None] = [document.without_ids() for document in documents]
        self._running, self._head, self._located = batches, head, located

    def outputs(self, on_batch: OnBatch | None = None) -> list[object]:
        """Wait for all documents and return the head's output of each, in order.

        A document's windows need not share a batch; they are joined when the last one is finished.
        """
        counts = [len(document.windows) for document in self._documents if document is not None]
        owners = np.repeat(np.arange(len(counts)), counts)
        firsts = np.cumsum([0, *counts])
        n_missing = np.array(counts)
        window_outputs: list[object] = [None] * len(owners)
        outputs: list[object] = [None] * len(self._documents)
        for batch in self._running.batches():
            n_done = 0
            for row, output in zip(batch.rows, batch.outputs, strict=True):
                i = owners[row]
                window_outputs[row] = output
                n_missing[i] -= 1
                if not n_missing[i]:
                    span = slice(firsts[i], firsts[i + 1])
                    document, self._documents[i] = self._documents[i], None
                    assert document is not None
                    outputs[i] = self._joined(document, window_outputs[span])
                    window_outputs[span] = [None] * (firsts[i + 1] - firsts[i])
                    n_done += 1
            if on_batch:
                n_written = self._head.written(batch.outputs)
                on_batch(n_done, batch.tokens + n_written, batch.padded_tokens + n_written)
        return outputs

    def _joined(self, document: Document, outputs: Sequence[object]) -> object:
        output = self._head.join(document, outputs)
        return WindowOutputs(output, outputs, document.places()) if self._located else output

    def cancel(self) -> None:
        self._running.cancel()
