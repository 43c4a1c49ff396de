"""The gate on made-up outputs: what it compares, and what it refuses."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from headrace.configs.schema import Gate
from headrace.serving.arrays import Array, Ids
from headrace.tasks.export import parity
from headrace.tasks.export.parity import FP32, INT8, ParityCheck, Tolerance

N_ROWS, N_LABELS = 40, 3
TARGETS = np.arange(N_ROWS) % N_LABELS


def row(length: int) -> Ids:
    return np.arange(length, dtype=np.int64) + 100


ROWS = [row(3 + i * 7 % N_ROWS // 2) for i in range(N_ROWS)]
LONGEST = row(32)


def model(rows: Sequence[Ids]) -> Array:
    """Logits that lean to label `length // 2 % 3`, by 1 to 3, and depend on the row alone."""
    logits = np.zeros((len(rows), N_LABELS), dtype=np.float32)
    for i, one in enumerate(rows):
        logits[i, len(one) // 2 % N_LABELS] = 1 + len(one) % 3
    return logits


class Texts:
    """Each row is a text; its logits are its output."""

    def join_windows(self, outputs: Sequence[Array]) -> Array:
        return np.stack(outputs)

    def separate_windows(self, rows: Sequence[int], outputs: Sequence[Array]) -> Array:
        return np.stack(outputs)

    def decide(self, outputs: Array) -> list[int]:
        return [int(label) for label in outputs.argmax(axis=1)]

    def agrees(self, decision: int, other: int) -> bool:
        return decision == other

    def numbers(self, outputs: Array) -> Array:
        return outputs

    def measure(self, outputs: Array) -> float:
        """Accuracy."""
        targets = [len(one) // 2 % N_LABELS for one in ROWS]
        return float(np.mean(np.array(self.decide(outputs)) == targets))


def parity_check(**limits: float) -> tuple[ParityCheck, list[Ids]]:
    rows, batches = parity.plan(ROWS, LONGEST, token_budget=512)
    expected = parity.run_all(model, rows, batches)
    texts = Texts()
    one = ParityCheck(batches, expected, None, texts, Gate.model_validate(limits))
    return replace(one, expected_texts=texts.join_windows(one.in_row_order(expected))), rows


def compared(run: parity.Run, tolerance: Tolerance = FP32, **limits: float) -> parity.ParityResult:
    one, rows = parity_check(**limits)
    return one.compare(parity.run_all(run, rows, one.batches), tolerance)


# --- the batches ----------------------------------------------------------------------------------


def test_scoring_batches_hold_every_row_once_and_not_the_added_one() -> None:
    rows, batches = parity.plan(ROWS, LONGEST, token_budget=512)
    assert len(rows) == N_ROWS + 1
    assert sorted(np.concatenate(batches["scoring"])) == list(range(N_ROWS))


def test_every_mixed_batch_pads_its_short_rows() -> None:
    rows, batches = parity.plan(ROWS, LONGEST, token_budget=512)
    for batch in batches["mixed"]:
        lengths = [len(rows[i]) for i in batch]
        assert len(batch) >= 7
        assert max(lengths) >= 2 * min(lengths)


def test_single_rows_and_the_maximum_length_are_among_the_shapes() -> None:
    rows, batches = parity.plan(ROWS, LONGEST, token_budget=512)
    single = [len(rows[i]) for batch in batches["single"] for i in batch]
    assert (len(batches["single"]), single[0], single[-1]) == (3, 3, 22)
    alone, padded = ([len(rows[i]) for i in batch] for batch in batches["longest"])
    assert alone == [32]
    assert padded == [32, 3, 3, 4, 4, 5, 5]


def test_a_single_row_can_be_planned() -> None:
    rows, batches = parity.plan(ROWS[:1], LONGEST, token_budget=512)
    assert parity.run_all(model, rows, batches)["mixed"][0].shape == (N_LABELS,)


def test_outputs_come_back_in_row_order() -> None:
    one, _ = parity_check()
    assert (np.stack(one.in_row_order(one.expected)) == model(ROWS)).all()


# --- the comparison -------------------------------------------------------------------------------


def test_the_same_outputs_pass() -> None:
    found = compared(model)
    assert found == parity.ParityResult(None, agreement=1.0, metric=1.0, max_logit_difference=0.0)


def test_rounding_passes_and_is_reported() -> None:
    found = compared(lambda rows: model(rows) + np.float32(1e-5))
    assert found.reason is None
    assert found.max_logit_difference == pytest.approx(1e-5, rel=0.1)


def test_one_wrong_output_of_one_batch_is_refused() -> None:
    def wrong(rows: Sequence[Ids]) -> Array:
        outputs = model(rows)
        if len(rows) == 1 and len(rows[0]) == 32:
            outputs[0, 1] += 0.001
        return outputs

    assert "longest batches differ from PyTorch's by 0.00033" in str(compared(wrong).reason)


def test_a_small_error_everywhere_is_refused() -> None:
    found = compared(lambda rows: model(rows) * np.float32(0.7), INT8, max_metric_drop=1)
    assert found.agreement == 1.0
    assert "(mean; allowed: " in str(compared(lambda rows: model(rows) + 0.4, INT8).reason)


def test_a_mask_that_is_not_heeded_is_refused() -> None:
    def padded(rows: Sequence[Ids]) -> Array:
        longest = max(len(one) for one in rows)
        return model([row(longest)] * len(rows))

    # Sorted by length, rows of a batch are nearly equal: only the other batches can tell.
    assert "mixed batches differ" in str(compared(padded, INT8).reason)


def test_swapped_labels_are_refused() -> None:
    found = compared(lambda rows: model(rows)[:, ::-1], Tolerance(9, 9))
    assert "metric" in str(found.reason)
    assert "predictions match PyTorch's on" in str(found.reason)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_refused(value: float) -> None:
    def broken(rows: Sequence[Ids]) -> Array:
        outputs = model(rows)
        outputs[0, 0] = value
        return outputs

    found = compared(broken, Tolerance(9, 9), min_agreement=0, max_metric_drop=1)
    assert " outputs of the graph in scoring batches are NaN or infinite" in str(found.reason)
    assert found.agreement is None


def test_a_pytorch_model_that_gives_no_numbers_passes_nothing() -> None:
    one, _ = parity_check()
    nothing = {
        kind: [np.full_like(output, np.nan) for output in outputs]
        for kind, outputs in one.expected.items()
    }
    broken = replace(one, expected=nothing)
    assert "outputs of PyTorch in scoring batches are NaN or infinite" in str(
        broken.compare(one.expected, INT8).reason
    )


def test_another_number_of_labels_is_refused() -> None:
    found = compared(lambda rows: model(rows)[:, :2])
    assert found.reason == ("outputs of scoring batches have shape (2,), expected (3,)")


def test_agreement_and_metric_have_limits_of_their_own() -> None:
    def one_row_wrong(rows: Sequence[Ids]) -> Array:
        outputs = model(rows)
        for i, one in enumerate(rows):
            if len(one) == 10:
                outputs[i] = np.roll(outputs[i], 1)
        return outputs

    loose = Tolerance(9, 9)
    passed = compared(one_row_wrong, loose, min_agreement=0.9, max_metric_drop=0.05)
    assert (passed.reason, passed.metric) == (None, 0.95)
    agreement = compared(one_row_wrong, loose, min_agreement=0.99, max_metric_drop=0.05)
    assert str(agreement.reason).endswith("(required: 99.00%)")
    metric = compared(one_row_wrong, loose, min_agreement=0.9, max_metric_drop=0.04)
    assert metric.reason == ("metric 0.9500, PyTorch's 1.0000: a drop of 0.0500 (allowed: 0.04)")


def test_a_metric_that_should_be_low_may_not_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    one, rows = parity_check(max_metric_drop=0.01)
    monkeypatch.setattr(Texts, "measure", lambda self, outputs: -float(outputs.max(axis=1).mean()))
    loss = replace(one, higher_is_better=False)
    smaller = parity.run_all(lambda some: model(some) * np.float32(0.9), rows, one.batches)
    assert "a drop of" in str(loss.compare(smaller, INT8).reason)
