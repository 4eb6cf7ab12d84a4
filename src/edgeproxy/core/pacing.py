"""Yields the CPU every few items of a long computation.

A computing thread may keep its CPU from a thread that has just been woken until the kernel's next
tick, some milliseconds later. That is long for a message. The caller says what `rest` does, for
instance a system call, since this package makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import TypeVar

ITEMS_BETWEEN_RESTS = 4
SORTED_AT_ONCE = 1000
"""Sorting more at once would keep the interpreter from all other threads for too long."""

Pause = Callable[[], object]
_T = TypeVar("_T")
_Sortable = TypeVar("_Sortable", bound=tuple[object, ...])


def no_pause() -> None:
    """Do not rest, where no other thread waits for the CPU."""


def paced(items: Iterable[_T], rest: Pause) -> Iterator[_T]:
    """Yield the items, and call `rest` every `ITEMS_BETWEEN_RESTS` of them."""
    if rest is no_pause:
        yield from items
        return
    for number, item in enumerate(items):
        if not number % ITEMS_BETWEEN_RESTS:
            rest()
        yield item


def empty(items: list[_T], rest: Pause) -> None:
    """Empty a list, from its end. To free a long one at once would stop all threads meanwhile."""
    for _ in paced(range(len(items)), rest):
        items.pop()


def paced_sorted(items: Iterable[_Sortable], rest: Pause) -> Iterator[_Sortable]:
    """Yield the items in order; neither sorting nor any other step takes long."""
    parts: list[list[_Sortable]] = []
    unsorted = iter(items)
    while part := list(islice(unsorted, SORTED_AT_ONCE)):
        rest()
        part.sort()
        parts.append(part)
    return paced(merge(*parts), rest)
