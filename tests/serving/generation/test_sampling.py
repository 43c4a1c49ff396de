"""Which token comes next, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.serving.errors import InputError
from headrace.serving.generation import sampling
from headrace.serving.generation.sampling import Decoding, choose

PROBABILITIES = np.array([0.05, 0.4, 0.25, 0.2, 0.1])


class Fixed:
    """Random numbers that are known."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def shares(**how: Any) -> list[float]:
    """How often each token is drawn."""
    numbers = (np.arange(10_000) + 0.5) / 10_000
    logits = np.tile(np.log(PROBABILITIES), (len(numbers), 1))
    drawn = choose(logits, Decoding(**{"temperature": 1.0, **how}), [Fixed(u) for u in numbers])  # type: ignore[misc]
    return [float(one) for one in (np.bincount(drawn, minlength=5) / len(numbers)).round(3)]


def test_without_a_temperature_the_likeliest_is_taken() -> None:
    logits = np.log(np.stack([PROBABILITIES, PROBABILITIES[::-1]]))
    assert choose(logits, Decoding(), [None, None]).tolist() == [1, 3]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.05, 0.4, 0.25, 0.2, 0.1]),
        ({"top_k": 2}, [0, 0.615, 0.385, 0, 0]),
        # 0.4 + 0.25 are under 0.7: the token that passes it is kept too.
        ({"top_p": 0.7}, [0, 0.471, 0.294, 0.235, 0]),
        ({"top_p": 1e-6}, [0, 1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0.615, 0.385, 0, 0]),
        ({"top_k": 50}, [0.05, 0.4, 0.25, 0.2, 0.1]),
        ({"temperature": 0.5}, [0.009, 0.582, 0.227, 0.145, 0.036]),
    ],
)
def test_tokens_are_drawn_by_their_probability(how: dict[str, Any], expected: list[float]) -> None:
    assert shares(**how) == pytest.approx(expected, abs=0.002)


def test_a_share_of_a_large_vocabulary_is_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 3000)) * random.uniform(0.1, 5, (200, 1))
    how = Decoding(temperature=1.0, top_p=0.9)
    numbers: list[Any] = [Fixed(u) for u in random.random(200)]
    found = choose(logits, how, numbers)
    monkeypatch.setattr(sampling, "LIKELIEST", 3000)
    assert (choose(logits, how, numbers) == found).all()
    monkeypatch.setattr(sampling, "LIKELIEST", 5)
    assert (choose(logits, how, numbers) == found).all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be an integer, not 1.5"),
        ({"seed": True}, "seed must be an integer, not True"),
        ({"stop": 7}, "stop must be a list of strings, such as .*, not 7"),
        ({"stop": [None]}, "stop must be a list of strings, .* without empty strings, not"),
        ({"stop": [""]}, "stop must be a list of strings, .* without empty strings, not"),
        ({"temperature": float("inf")}, "temperature must be finite, not inf"),
        ({"min_new_tokens": 9, "max_new_tokens": 4}, "min_new_tokens must be 0 to max_new_tok"),
        ({"num_beams": 101}, "num_beams must be 1 to 100, not 101"),
        ({"length_penalty": -1e300}, "length_penalty must be -10 to 10, not -1e\\+300"),
        ({"length_penalty": 11}, "length_penalty must be -10 to 10, not 11"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty must be 1/100 to 100, not 1e-300"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"num_beams": 4, "temperature": 1.0}, "requires temperature=0: .* temperature is 1"),
    ],
)
def test_what_cannot_be_is_said(how: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Decoding(**how)


def test_one_string_is_a_list_of_one() -> None:
    assert Decoding(stop=".").stop == (".",)
