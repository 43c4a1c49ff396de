"""A model folder, opened for scoring: texts in, outputs or columns out, in the same order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from . import golden, heads, manifest
from .batching import plan_batches
from .cores import granted_cores
from .errors import ModelFolderError, ProviderError
from .heads import Ids
from .session import Device, device_of, open_session, providers_for
from .tokenizer import TextTokenizer

log = logging.getLogger(__name__)

TOKEN_BUDGETS: dict[Device, int] = {"cpu": 512, "cuda": 16_384}
"""Tokens a batch holds, padding included: on a CPU what its caches hold, measured on MiniLM."""


class Scorer:
    """One variant of a model on one device.

    `.manifest`, `.variant` (a manifest.Variant), `.provider`, `.providers`, `.threads`,
    `.token_budget`, `.folder` say what was opened.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        variant: str | None = None,
        device: Device = "auto",
        threads: int | None = None,
        token_budget: int | None = None,
        check: bool = True,
    ) -> None:
        """Open the model's default variant, or the one asked for.

        `check`: compare its outputs with the golden ones first. A default that fails makes room
        for the next variant, with a warning; a variant asked for by name is never replaced.
        Raises ModelFolderError when nothing is left or the folder is not whole, ProviderError
        when the device cannot be had or no variant is made for it.
        """
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        self.head = heads.get(self.manifest.objective)
        self.threads = threads or granted_cores()
        self._tokenizer = TextTokenizer(self.folder / "tokenizer.json", self.manifest.max_length)
        self._open(self._candidates(variant, device), check=check)
        self.token_budget = token_budget or TOKEN_BUDGETS[device_of(self.provider)]

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

    def _open(self, candidates: list[tuple[manifest.Variant, str]], *, check: bool) -> None:
        """Take the first candidate that computes here what it computed where it was exported."""
        problems: list[str] = []
        for variant, provider in candidates:
            if problems:
                log.warning("%s; trying %s", problems[-1], variant.name)
            self.variant, self.provider = variant, provider
            self._session = open_session(
                self.folder / variant.file,
                provider=provider,
                threads=self.threads,
                disabled_optimizers=variant.disabled_optimizers,
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
        found = self.outputs(texts, token_budget=golden.TOKEN_BUDGET)
        expected = outputs[self.variant.name]
        return golden.difference(expected, found, tolerance=self.variant.tolerance)

    @property
    def providers(self) -> list[str]:
        """onnxruntime's execution providers in use, best first."""
        return list(self._session.get_providers())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, (length,) with length ≤ manifest.max_length."""
        return self._tokenizer.encode(texts)

    def run(
        self,
        rows: Sequence[Ids],
        *,
        token_budget: int | None = None,
        on_rows: Callable[[int], None] | None = None,
    ) -> Any:
        """The head's outputs for all rows, in their order: for classification logits (n, k).

        `on_rows` is called after every batch with the number of its rows.
        """
        budget = token_budget or self.token_budget
        outputs: list[Any] = [None] * len(rows)
        for batch in plan_batches([len(row) for row in rows], token_budget=budget):
            found = self.head.run(
                self._session, [rows[i] for i in batch], pad_id=self.manifest.pad_id
            )
            for index, output in zip(batch, found, strict=True):
                outputs[index] = output
            if on_rows:
                on_rows(len(batch))
        return self.head.collect(outputs, self.manifest.head)

    def outputs(self, texts: Sequence[str], *, token_budget: int | None = None) -> Any:
        """What the model gives for each text: for classification logits (n, k) float32."""
        return self.run(self.encode(texts), token_budget=token_budget)

    def fields(self, **options: Any) -> list[pa.Field]:
        """The columns of a scored row. `options`: the head's, such as `probabilities=True`."""
        return self.head.fields(self.manifest.head, **options)

    def decode(self, outputs: Any, **options: Any) -> pa.Table:
        """Collected outputs to the columns of scored rows, the decision first."""
        columns = self.head.columns(outputs, self.manifest.head, **options)
        return pa.Table.from_arrays(columns, schema=pa.schema(self.fields(**options)))

    def score(self, texts: Sequence[str], **options: Any) -> pa.Table:
        """The scored rows of a few texts; tables are what job.py is for."""
        return self.decode(self.outputs(texts), **options)
