"""The candidates of one place that are passed over because they failed lately.

Two heaps hold them, so that neither a choice nor a refusal depends on how many there are:

    by time     gives the candidates whose time is over, to be ranked again (`readmit`)
    by load     gives the least loaded one, for a client that is left with no other (`best`)

If thousands of candidates come back at the same time, each choice readmits only some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.lazy_heap import LazyHeap
from edgeproxy.core.pacing import Pause, no_pause, paced

if TYPE_CHECKING:
    from edgeproxy.core.routing.ranking import Candidate, Entry

READMITTED_AT_ONCE = 32

Due = tuple[float, int, "Candidate"]
"""When a candidate is passed over no longer, its place in the table, and the candidate."""


class PassedOver:
    """At most `size` candidates, with their current entries. For the gate thread.

    Attributes:
        until: When each of them is passed over no longer, as far as is known.
    """

    __slots__ = ("_by_load", "_by_time", "until")

    def __init__(self, size: int) -> None:
        self.until: dict[Candidate, float] = {}
        self._by_time: LazyHeap[Due] = LazyHeap((), self._is_awaited, size)
        self._by_load: LazyHeap[Entry] = LazyHeap((), self._is_here, size)

    def add(self, entry: Entry) -> None:
        """Take a candidate with its current entry, until its `passed_over_until`."""
        candidate = entry[3]
        until = candidate.live.passed_over_until
        self._by_load.push(entry)
        if self.until.get(candidate) != until:
            self.until[candidate] = until
            self._by_time.push((until, candidate.sequence, candidate))

    def readmit(self, now: float, rank: Callable[[Entry], object]) -> bool:
        """Remove candidates whose time is over, and `rank` them. Return whether there were any."""
        by_time = self._by_time
        for count in range(READMITTED_AT_ONCE):
            item = by_time.front()
            if item is None or item[0] > now:
                return count > 0
            _, sequence, candidate = by_time.pop()
            until = candidate.live.passed_over_until
            if until > now:
                self.until[candidate] = until
                by_time.push((until, sequence, candidate))
                continue
            del self.until[candidate]
            if candidate.entry is not None:
                rank(candidate.entry)
        return True

    def choose(
        self, now: float, rank: Callable[[Entry], object], best: Callable[[], Entry | None]
    ) -> Entry | None:
        """Return what `best` finds, after readmitting candidates whose time is over.

        While it finds none, more of them are readmitted.
        """
        is_readmitted = self.readmit(now, rank)
        entry = best()
        while entry is None and is_readmitted:
            is_readmitted = self.readmit(now, rank)
            entry = best()
        return entry

    def best(self, tried: Collection[str]) -> Entry | None:
        """Return the entry of the least loaded candidate that may be tried, ties by turn.

        A full one may not, nor one whose breaker is open. `tried` are the ids of backends that
        this client is not to be given again.
        """
        return least(self._by_load, _may_be_tried, tried)

    def clear(self, rest: Pause = no_pause) -> None:
        """Remove all candidates, a few at a time."""
        for _ in paced(range(len(self.until)), rest):
            self.until.popitem()
        self._by_time.clear(rest)
        self._by_load.clear(rest)

    def _is_awaited(self, item: Due) -> bool:
        return self.until.get(item[2]) == item[0]

    def _is_here(self, entry: Entry) -> bool:
        candidate = entry[3]
        return candidate.entry is entry and candidate in self.until


def least(
    heap: LazyHeap[Entry], may_be_chosen: Callable[[Entry], bool], tried: Collection[str]
) -> Entry | None:
    """Return the least entry of a heap that may be chosen, and is of no backend in `tried`.

    Entries before it that may not be chosen leave the heap; those of `tried` backends stay.
    """
    skipped: list[Entry] = []
    entry = heap.front()
    while entry is not None:
        candidate = entry[3]
        if may_be_chosen(entry):
            if candidate.backend.id not in tried:
                break
            skipped.append(entry)
        if candidate.entry is entry:  # else `front` drops it
            heap.pop()
        entry = heap.front()
    for each in skipped:
        heap.push(each)
    return entry


def _may_be_tried(entry: Entry) -> bool:
    candidate = entry[3]
    if candidate.live.active >= candidate.limit:
        candidate.entry = None  # it gets one when a slot is released
        return False
    return candidate.live.circuit is Circuit.CLOSED
