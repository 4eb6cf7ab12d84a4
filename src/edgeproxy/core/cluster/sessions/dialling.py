"""When a node is dialled: after a pause that grows with each failure, and not all nodes at once.

A pause is random between 0 and its bound, so that the nodes that lost the same peer do not come
back together; all dials of this node together have a rate.
"""

from __future__ import annotations

from typing import Protocol

FIRST_PAUSE_SECS = 0.5
LONGEST_PAUSE_SECS = 30.0
DIALS_PER_SEC = 5
STEADY_SECS = 10.0
"""A session that has held for so long was a good one: the next pause is short again."""


class Random(Protocol):
    """A source of randomness, as `random.Random`."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between `a` and `b`."""


def pause_secs(failures: int, rng: Random) -> float:
    """Return how long to wait before the next try, after so many failures in a row."""
    if not failures:
        return 0.0
    bound = FIRST_PAUSE_SECS * 2 ** min(failures - 1, 16)
    return rng.uniform(0.0, min(bound, LONGEST_PAUSE_SECS))


class DialRate:
    """Spreads dials: at most `DIALS_PER_SEC`. Times are monotonic seconds."""

    __slots__ = ("_next_at",)

    def __init__(self) -> None:
        self._next_at = float("-inf")

    def next_at(self, now: float) -> float:
        """Return when the dial that is wanted now may begin, and count it."""
        at = max(now, self._next_at)
        self._next_at = at + 1 / DIALS_PER_SEC
        return at
