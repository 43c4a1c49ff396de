"""Run a decoder graph that updates the cached keys and values of many rows in place.

Each row has its own place in one static cache and its own position there, so rows of any length run
side by side without left padding, and may come and go at any step. The graph's inputs, for b rows
of l tokens each, k of them with logits wanted, and a capacity of c tokens:

    input_ids, position_ids (b, l)    tokens and their positions, from 0
    wanted (b, k)                     which of the l tokens' logits are wanted
    last (b), int32                   position of the row's last token
    keys (s)                          0, 1, ... up to the last token of the longest row
    past.N.key, past.N.value          (b, heads, c, d) of layer N; `present...` are the same memory
    source_mask (b, t), cross.N.*     an encoder's outputs, if there is one (decoder_step.py)

The output is `logits` (b, k, vocabulary).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnxruntime as ort

from ..arrays import Array, Ids

PAST, PRESENT = "past.", "present."
READ_TOKENS = 512
"""Prompt tokens per run, padding included: few enough to fit the CPU's caches, and for the rows of
one run to be of similar lengths."""


class Decoder:
    """A decoder graph with a cache for `n_rows` rows of `capacity` tokens."""

    def __init__(
        self,
        session: ort.InferenceSession,
        n_rows: int,
        capacity: int,
        memory: Mapping[str, Array] | None = None,
    ) -> None:
        """`memory`: inputs that are the same at every step, each (n_rows, ...)."""
        self._session, self._memory = session, dict(memory or {})
        self._names = {node.name for node in session.get_inputs()}
        self._past: dict[str, Array] = {}
        for node in session.get_inputs():
            if node.name.startswith(PAST):
                _, heads, _, width = node.shape
                self._past[node.name] = np.zeros((n_rows, heads, capacity, width), np.float32)
        self._bound: tuple[range, ort.IOBinding] | None = None

    def start(self, rows: Sequence[Ids], place: int = 0) -> Array:
        """Run new rows, each (length,), in the places from `place` on.

        Returns the logits at the last token of each, (rows, vocabulary).
        """
        logits, start = [], 0
        for stop in _ends([len(row) for row in rows]):
            group = rows[start:stop]
            logits.append(self.read(group, [[len(row) - 1] for row in group], place + start)[:, 0])
            start = stop
        return logits[0] if len(logits) == 1 else np.concatenate(logits)

    def read(self, rows: Sequence[Ids], wanted: Sequence[Sequence[int]], place: int = 0) -> Array:
        """Run new rows; return logits at the k wanted tokens of each, (rows, k, vocabulary)."""
        return self._run(reading(rows, wanted), place)

    def remember(self, place: int, memory: Mapping[str, Array]) -> None:
        """Set the memory of the rows from `place` on, to which they attend at every step."""
        for name, array in memory.items():
            self._memory[name][place : place + len(array)] = array

    def step(self, ids: Ids, positions: Ids) -> Array:
        """Run one more token of the rows in the first n places; return logits (n, vocabulary).

        `ids`: the tokens, (n,). `positions`: theirs, (n,), equal to the number of tokens that each
        row had before.
        """
        feeds = _feeds(
            ids[:, None], positions[:, None], np.zeros((len(ids), 1), np.int64), positions
        )
        return self._run(feeds, 0)[:, 0]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row of `length` tokens, with its memory, to another place."""
        for cache in self._past.values():
            cache[target, :, :length] = cache[source, :, :length]
        for array in self._memory.values():
            array[target] = array[source]

    def reorder(self, parents: Ids, length: int) -> None:
        """Make every row i a copy of row parents[i]: the cached tokens, not the memory."""
        changed_rows = np.flatnonzero(parents != np.arange(len(parents)))
        if len(changed_rows):
            for cache in self._past.values():
                cache[changed_rows, :, :length] = cache[parents[changed_rows], :, :length]

    def _run(self, feeds: Mapping[str, Array], place: int) -> Array:
        binding = self._binding(range(place, place + len(feeds["input_ids"])))
        for name in feeds.keys() & self._names:  # some models take no positions
            binding.bind_cpu_input(name, feeds[name])
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: Array = binding.get_outputs()[-1].numpy()
        return logits

    def _binding(self, places: range) -> ort.IOBinding:
        """Bind the caches of these rows as inputs and outputs, so that the graph updates them."""
        if self._bound is None or self._bound[0] != places:
            binding = self._session.io_binding()
            rows = slice(places.start, places.stop)
            for name, cache in self._past.items():
                value = ort.OrtValue.ortvalue_from_numpy(cache[rows])  # no copy
                binding.bind_ortvalue_input(name, value)
                binding.bind_ortvalue_output(name.replace(PAST, PRESENT), value)
            for name, array in self._memory.items():
                binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array[rows]))
            self._bound = places, binding
        return self._bound[1]


def _ends(lengths: Sequence[int]) -> Iterator[int]:
    """Yield the ends of the groups of rows that run together."""
    start = longest = 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > start and longest * (row + 1 - start) > READ_TOKENS:
            yield row
            start, longest = row, length
    yield len(lengths)


def reading(rows: Sequence[Ids], wanted: Sequence[Sequence[int]]) -> dict[str, Array]:
    """Return the inputs for new rows of tokens, each (length,), without caches and memory."""
    last = np.array([len(row) - 1 for row in rows])
    ids = np.zeros((len(rows), int(last.max()) + 1), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    positions = np.tile(np.arange(ids.shape[1]), (len(rows), 1))
    return _feeds(ids, positions, np.asarray(wanted, np.int64), last)


def _feeds(ids: Ids, positions: Ids, wanted: Ids, last: Array) -> dict[str, Array]:
    return {
        "input_ids": np.ascontiguousarray(ids),
        "position_ids": np.ascontiguousarray(positions),
        "wanted": np.ascontiguousarray(wanted),
        "last": last.astype(np.int32),
        "keys": np.arange(int(last.max()) + 1),
    }
