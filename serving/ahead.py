"""Making the next item while this one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


def ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The same items, made in another thread, up to `depth` of them before they are asked for.

    What goes wrong there is raised here, when its turn comes.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        made: deque[Future[Any]] = deque(thread.submit(next, source, END) for _ in range(depth))
        while (item := made.popleft().result()) is not END:
            made.append(thread.submit(next, source, END))
            yield item
