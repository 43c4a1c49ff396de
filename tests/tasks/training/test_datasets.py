"""Steps shared among processes and cut into pieces, and rows as tensors."""

from itertools import chain
from typing import Any

import pytest

from headrace.tasks.training import datasets


@pytest.mark.parametrize("kind", [datasets.RowSteps, datasets.TokenSteps])
@pytest.mark.parametrize("n_rows", [1, 5, 64, 66])
def test_processes_share_each_step(kind: Any, n_rows: int) -> None:
    lengths = [3 + i % 30 for i in range(n_rows)]

    def of(rank: int) -> datasets.Steps:
        made: datasets.Steps = kind(lengths, 60, seed=lambda: 7, rank=rank, world_size=3)
        return made

    shares = [list(of(rank)) for rank in range(3)]
    assert {len(one) for one in shares} == {len(of(0))}
    assert all(rows for one in shares for rows in one)
    assert {row for one in shares for rows in one for row in rows} == set(range(n_rows))
    if kind is datasets.RowSteps and n_rows in (64, 66):  # 60, and 4 or 6
        assert sorted(chain(*chain(*shares))) == list(range(n_rows))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[4, 5, 6, 20]]),
        ({"rows": 2}, [[4, 5], [6, 20]]),
        ({"tokens": 12}, [[4, 5], [6], [20]]),
        ({"tokens": 18}, [[4, 5, 6], [20]]),
        ({"rows": 1}, [[4], [5], [6], [20]]),
        ({"tokens": 1}, [[4], [5], [6], [20]]),
    ],
)
def test_a_step_is_cut_into_pieces(limits: dict[str, int], expected: list[list[int]]) -> None:
    cut = datasets.InPieces(lambda rows: [row["length"] for row in rows], **limits)
    assert cut([{"length": n} for n in (4, 5, 6, 20)]) == expected


def test_the_collator_pads_to_the_longest_row() -> None:
    batch = datasets.Collator(pad_id=9)(
        [{"input_ids": [1, 2, 3], "labels": 1}, {"input_ids": [4], "labels": 0}]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_the_collator_pads_label_sequences_with_what_the_loss_ignores() -> None:
    batch = datasets.Collator(pad_id=0)(
        [{"input_ids": [1, 2], "labels": [5, 6]}, {"input_ids": [3], "labels": [7]}]
    )
    assert batch["labels"].tolist() == [[5, 6], [7, -100]]
