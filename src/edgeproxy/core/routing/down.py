"""The candidates of one place whose probes say that they are down, in order of load.

They are chosen from only in panic, when probes say that of every backend (`selection.panic`). They
are kept in order at all times: a panic begins without sorting anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from edgeproxy.core.lazy_heap import LazyHeap
from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.core.routing.eligibility import Ineligible, ineligible
from edgeproxy.core.routing.passed_over import PassedOver, least

if TYPE_CHECKING:
    from edgeproxy.core.routing.ranking import Entry


class Down:
    """At most `size` candidates, with their current entries. For the gate thread.

    It may also hold candidates that take no clients for another reason, such as draining; a
    choice drops those.

    Attributes:
        passed_over: Those of them that failed lately.
    """

    __slots__ = ("_heap", "passed_over")

    def __init__(self, entries: Iterable[Entry], size: int) -> None:
        """`entries` come in order."""
        self._heap: LazyHeap[Entry] = LazyHeap(entries, is_current, size)
        self.passed_over = PassedOver(size)

    def push(self, entry: Entry) -> None:
        """Take the current entry of a candidate that takes no clients."""
        self._heap.push(entry)

    def best(self, now: float, tried: Collection[str]) -> Entry | None:
        """Return the entry of the least loaded candidate that has not failed lately, or None.

        `tried` are the ids of backends that this client is not to be given again.
        """
        return self.passed_over.choose(
            now,
            self.push,
            lambda: least(self._heap, lambda entry: self._may_be_chosen(entry, now), tried),
        )

    def _may_be_chosen(self, entry: Entry, now: float) -> bool:
        candidate = entry[3]
        if ineligible(candidate.backend, candidate.live, now) is not Ineligible.DOWN:
            return False
        if candidate.live.active >= candidate.limit:
            candidate.entry = None  # it gets one when a slot is released
            return False
        if candidate.live.passed_over_until > now:
            self.passed_over.add(entry)
            return False
        return True

    def clear(self, rest: Pause = no_pause) -> None:
        """Remove all candidates, a few at a time."""
        self._heap.clear(rest)
        self.passed_over.clear(rest)


def is_current(entry: Entry) -> bool:
    """Return whether this is the entry of its candidate, and no older one."""
    return entry[3].entry is entry
