from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from serving.ahead import ahead


def test_items_come_in_order_and_are_made_before_they_are_asked_for() -> None:
    made = threading.Semaphore(0)

    def source() -> Iterator[int]:
        for i in range(4):
            made.release()
            yield i

    items = ahead(source(), depth=2)
    assert next(items) == 0
    for _ in range(3):  # 0, and two more that nobody has asked for
        assert made.acquire(timeout=5)
    assert list(items) == [1, 2, 3]


def test_no_more_are_made_than_the_depth_allows() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    items = ahead(source(), depth=1)
    next(items)
    next(items)
    items.close()  # type: ignore[attr-defined]  # waits for the one under way
    assert made == [0, 1, 2]


def test_what_goes_wrong_is_raised_when_its_turn_comes() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert list(ahead([])) == []
