"""Whose turn it is while backends of a place are in slow start: they have a heap of their own.

How their shares grow is decided in `core/backends/slow_start`.

Together they receive (sum of their current shares) / (sum of all weights) of the new clients of
the place. Without this they would get every client, because a new backend is always the least
loaded. Among themselves the least loaded comes first, and equal loads take turns.

`SlowStartTurns` counts, in integers so that nothing is rounded, how many clients they are owed: a
client of another backend adds the weight that those in slow start have; a client of theirs
subtracts the weight that the others have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from edgeproxy.core.lazy_heap import LazyHeap

AnyEntry = TypeVar("AnyEntry", bound=tuple[float, float, int, object])


class SlowStartTurns(Generic[AnyEntry]):
    """The backends of one place that are in slow start.

    Attributes:
        standing: The sum of their shares, in `ranking.PARTS`; 0 if there are none.
        heap: Their entries.
    """

    __slots__ = ("_clock", "_owed", "heap", "standing")

    def __init__(self, standing: int, clock: float, heap: LazyHeap[AnyEntry]) -> None:
        self.standing = standing
        self.heap = heap
        self._clock = clock
        self._owed = 0

    def choose(
        self, best: AnyEntry | None, others: int, stands: Callable[[AnyEntry], bool]
    ) -> AnyEntry | None:
        """Return an entry of theirs if it is their turn or there is no other, else `best`.

        `others` is what the other backends have; `stands` tells whether an entry can be chosen.
        """
        is_their_turn = self._owed >= others
        heap = self.heap
        while best is None or is_their_turn:
            entry = heap.front()
            if entry is None:
                return best
            if stands(entry):
                return entry if best is None or entry[0] <= best[0] else best
            heap.pop()
        return best

    def note_other(self, others: int) -> None:
        """Another backend was chosen."""
        self._owed = min(self._owed + self.standing, others + self.standing)

    def take_turn(self, turn: float, step: float, others: int) -> float:
        """A backend in slow start was chosen, with this turn. Return its next turn."""
        self._owed = max(self._owed - others, 0)
        self._clock = max(self._clock, turn)
        return self._clock + step
