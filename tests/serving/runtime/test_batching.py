"""Rows to batches: by length, within the budget, padded to shapes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.runtime.batching import Shapes, pad, padded_tokens, plan_batches

CUDA = Shapes(length_step=8, max_length=250)
TENSORRT = Shapes(length_step=16, max_length=500, max_rows=256)


def test_rows_are_sorted_by_length_and_cut_at_the_budget() -> None:
    batches = plan_batches([5, 1, 5, 2, 9], token_budget=10)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2], [4]]


def test_rows_of_one_length_stay_in_input_order() -> None:
    batches = plan_batches([7] * 100, token_budget=70)
    assert [i for batch in batches for i in batch] == list(range(100))


def test_a_row_over_the_budget_runs_alone() -> None:
    assert [b.tolist() for b in plan_batches([30, 2, 40], token_budget=10)] == [[1], [0], [2]]


@pytest.mark.parametrize("budget", [1, 512])
def test_no_rows_make_no_batches(budget: int) -> None:
    assert plan_batches([], token_budget=budget) == []


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 300))
def test_every_row_is_in_one_batch_and_no_batch_is_over_budget(
    lengths: list[int], budget: int
) -> None:
    batches = plan_batches(lengths, token_budget=budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths)


@given(st.lists(st.integers(0, 9), max_size=80), st.integers(1, 50))
def test_rows_of_one_length_together_leave_no_padding(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, token_budget=budget, one_length=True)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len({lengths[i] for i in batch}) == 1 for batch in batches)
    assert padded_tokens(lengths, batches) == sum(lengths)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=80), st.integers(60, 300))
def test_no_batch_could_have_taken_the_next_row(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, token_budget=budget)
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * lengths[following[0]] > budget


def test_batches_that_grow_are_as_equal_as_can_be() -> None:
    def sizes(lengths: list[int], budget: int) -> list[int]:
        return [len(one) for one in plan_batches(lengths, token_budget=budget, max_growth=10)]

    assert sizes([10] * 100, 20 * 60) == [50, 50]  # not 60, 40
    assert sizes([10] * 100, 20 * 35) == [25, 25, 25, 25]  # not 35, 35, 30
    assert sizes([10] * 99, 20 * 30) == [25, 25, 25, 24]
    assert sizes([10] * 30, 20 * 35) == [30]


def test_padding_is_on_the_right_and_counted() -> None:
    rows = [np.array([7, 8, 9]), np.array([5])]
    ids, mask = pad(rows, pad_id=0)
    assert ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded_tokens([3, 1], [np.array([0, 1])]) == 6


def test_a_row_without_tokens_still_has_a_column() -> None:
    assert pad([np.array([], np.int64)], pad_id=4)[0].tolist() == [[4]]


# --- shapes ---------------------------------------------------------------------------------------


def test_lengths_go_up_in_steps_and_not_beyond_the_maximum() -> None:
    assert [CUDA.length(n) for n in (1, 8, 9, 245, 249, 250)] == [8, 8, 16, 248, 250, 250]
    assert [TENSORRT.length(n) for n in (1, 16, 17, 496, 497)] == [16, 16, 32, 496, 500]
    # A row that is longer than it should be is not cut.
    assert CUDA.length(300) == 300
    assert Shapes().length(7) == 7


def test_rows_are_powers_of_two_where_their_number_is_bounded() -> None:
    assert [TENSORRT.rows(n) for n in (1, 2, 3, 65, 256)] == [1, 2, 4, 128, 256]
    assert [CUDA.rows(n) for n in (1, 3, 65)] == [1, 3, 65]


def test_batches_fit_the_budget_in_the_shape_that_they_are_given() -> None:
    def sizes(lengths: list[int], token_budget: int, shapes: Shapes) -> list[int]:
        found = plan_batches(lengths, token_budget=token_budget, shapes=shapes)
        return [len(batch) for batch in found]

    assert sizes([10] * 100, 640, CUDA) == [40, 40, 20]  # padded to 16
    assert sizes([10] * 100, 800, TENSORRT) == [32, 32, 32, 4]  # padded to 16: 50 rows, so 32
    assert sizes([10] * 600, 1_000_000, TENSORRT) == [256, 256, 88]
    assert sizes([10, 100, 100], 100, TENSORRT) == [1, 1, 1]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=600), st.sampled_from([512, 16_384]))
def test_tensorrt_meets_few_shapes(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, token_budget=budget, shapes=TENSORRT)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        rows, length = TENSORRT.of([np.zeros(lengths[i], np.int64) for i in batch])
        assert rows in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        assert length in (*range(16, 497, 16), 500)
        assert rows * length <= budget or len(batch) == 1


def test_padding_to_a_shape_repeats_the_last_row() -> None:
    rows = [np.array([7, 8, 9]), np.array([5]), np.array([6])]
    ids, mask = pad(rows, pad_id=1, shapes=Shapes(length_step=4, max_length=8, max_rows=4))
    assert ids.tolist() == [[7, 8, 9, 1], [5, 1, 1, 1], [6, 1, 1, 1], [6, 1, 1, 1]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
