import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching import pad, padded_tokens, plan_batches


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


def test_padding_is_on_the_right_and_counted() -> None:
    rows = [np.array([7, 8, 9]), np.array([5])]
    ids, mask = pad(rows, pad_id=0)
    assert ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded_tokens([3, 1], [np.array([0, 1])]) == 6


def test_a_row_without_tokens_still_has_a_column() -> None:
    assert pad([np.array([], np.int64)], pad_id=4)[0].tolist() == [[4]]
