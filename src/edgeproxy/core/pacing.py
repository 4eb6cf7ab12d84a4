"""Lets a long computation be polite: it goes through its items, and rests now and then.

A thread that only computes may keep its CPU from a thread that has just been woken until the
kernel's next tick, some milliseconds later: long for a message. What `rest` does, for instance
a system call, is up to the caller; this package calls none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ITEMS_BETWEEN_RESTS = 4

Pause = Callable[[], object]
_T = TypeVar("_T")


def no_pause() -> None:
    """Do not rest: for who has nothing else to do."""


def paced(items: Iterable[_T], rest: Pause) -> Iterator[_T]:
    """Yield the items, with a rest after every few."""
    if rest is no_pause:
        yield from items
        return
    for number, item in enumerate(items):
        if not number % ITEMS_BETWEEN_RESTS:
            rest()
        yield item
