"""The ids of prepared texts are those that scoring makes."""

from __future__ import annotations

from typing import Any

import datasets

from headrace.serving.text.tokenizer import TextTokenizer


def test_the_ids_are_those_that_scoring_makes(prepared: Any) -> None:
    test = datasets.load_from_disk(str(prepared.path / "test"))
    tokenizer = TextTokenizer(prepared.path / "tokenizer" / "tokenizer.json", 32)
    expected = [ids.tolist() for ids in tokenizer.encode(test["text"][:])]
    assert test["input_ids"][:] == expected
    assert test["length"][:] == [len(ids) for ids in expected]
    assert max(test["length"][:]) <= 32
