"""Workers: what runs together, in which order it comes back, and what an error stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from headrace.serving.engine.runner import Runner
from headrace.serving.heads import Head, classification

CPU = "CPUExecutionProvider"


@pytest.fixture
def maskless(tmp_path: Path) -> Path:
    """A graph without a mask: (sum of the ids, their number) of each row."""
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["each"], to=f32),
        helper.make_node("ReduceSum", ["each", "tokens"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["each", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("ReduceSum", ["ones", "tokens"], ["count"], keepdims=1),
        helper.make_node("Concat", ["sum", "count"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("input_ids", i64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", f32, ["batch", 2])],
        [
            helper.make_tensor("tokens", i64, [1], [1]),
            helper.make_tensor("zero", f32, [], [0]),
            helper.make_tensor("one", f32, [], [1]),
        ],
    )
    file = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file
    )
    return file


def rows_of(*lengths: int) -> list[Any]:
    return [np.arange(1, n + 1) for n in lengths]


class Slow(Head):
    """Notes which rows came together, and fails on a row of 13 tokens."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__({}, pad_id=0)
        self.delay_s, self.seen, self.at_once, self._now = delay_s, [], 0, 0
        self._lock = threading.Lock()

    def run(self, session: Any, rows: Sequence[Any], **options: Any) -> Sequence[Any]:
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
            self.seen.append([len(row) for row in rows])
        time.sleep(self.delay_s)
        with self._lock:
            self._now -= 1
        if any(len(row) == 13 for row in rows):
            raise ValueError("thirteen")
        return [len(row) for row in rows]


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (3, 1), (2, 2)])
def test_outputs_are_each_rows_own_and_in_order(maskless: Path, workers: int, threads: int) -> None:
    runner = Runner(
        maskless, classification.Head({}, pad_id=0), provider=CPU, max_length=16,
        workers=workers, threads=threads, token_budget=8,
    )  # fmt: skip
    lengths = [3, 1, 7, 3, 3, 9, 1, 3, 2]
    found = np.stack(runner.run(rows_of(*lengths)))
    assert found.tolist() == [[n * (n + 1) / 2, n] for n in lengths]


def test_a_graph_without_a_mask_gets_rows_of_one_length_only(maskless: Path) -> None:
    head = Slow()
    runner = Runner(maskless, head, provider=CPU, max_length=16, token_budget=8)
    assert runner.one_length
    runner.run(rows_of(3, 1, 7, 3, 3, 9, 1, 3, 2))
    # The longest first; no more than 8 tokens, but for a row that is longer by itself.
    assert head.seen == [[9], [7], [3, 3], [3, 3], [2], [1, 1]]


def test_workers_run_at_the_same_time(maskless: Path) -> None:
    head = Slow(0.05)
    runner = Runner(maskless, head, provider=CPU, max_length=16, workers=3, token_budget=1)
    runner.run(rows_of(1, 2, 3, 4, 5, 6))
    assert head.at_once == 3


def test_an_error_is_raised_and_what_has_not_begun_is_dropped(maskless: Path) -> None:
    head = Slow(0.01)
    runner = Runner(maskless, head, provider=CPU, max_length=16, token_budget=1)
    with pytest.raises(ValueError, match="thirteen"):
        runner.run(rows_of(*range(1, 14)))
    assert runner.run(rows_of(2)) == [2]
    assert len(head.seen) < 13
