"""How long a client waits for a slot that an ending connection is about to free.

A client may be back before the engine knows that its last connection is over: the end is still in
the kernel's queue, on its way from a byte thread, or waits for the backend to close its side. Where
the gate knows of no free slot it answers `Wait`, and the client is decided again:

* when a ticket has ended that may help those in its line (`Wait.line`, `Gate.frees`), first come,
  first served, until one of the line has to go on waiting: so have the others, then. What others
  wait for makes no difference, nor how many they are;
* for the last time when everything that came before the client has been read, and no connection
  has begun to end within `ENDING_SECS`; or when it has waited for `LONGEST_SECS`.

So at a limit that is full of open connections a client is refused within a turn, and the others are
decided meanwhile. At most `MAX_WAITING` wait, and nobody fills all places (`Shares`): whoever finds
no room is decided at once. A slot is never given out before the gate has heard that it is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import TypeVar

from edgeproxy.engine.contract import Wait

_Key = TypeVar("_Key")

ENDING_SECS = 1.0
"""How long ago one side of a connection may have ended whose other side is about to follow."""
LONGEST_SECS = 1.0
MAX_WAITING = 512

_CLIENTS_PER_SITE = 2


class Shares:
    """Counts who waits, and for what; says for whom there is room.

    A client may have as many places as it leaves free, so half of them if nobody else waits, and a
    site twice as many as it leaves free. The more wait, the smaller the shares; for one who has no
    place yet there is always room, until as many wait as may.
    """

    def __init__(self) -> None:
        self._total = 0
        self._by_client: Counter[str] = Counter()
        self._by_site: Counter[str] = Counter()
        self._by_line: Counter[Hashable] = Counter()

    def has_room(self, wait: Wait) -> bool:
        """Return whether this client may wait."""
        free = MAX_WAITING - self._total
        if self._by_client[wait.client] >= free:
            return False
        return not wait.site or self._by_site[wait.site] < _CLIENTS_PER_SITE * free

    def awaited(self, lines: Iterable[Hashable]) -> set[Hashable]:
        """Return those of these lines in which anybody waits."""
        return {line for line in lines if line in self._by_line}

    def enter(self, wait: Wait) -> None:
        """Count a client that waits."""
        self._add(wait, 1)

    def leave(self, wait: Wait) -> None:
        """A client that was counted is decided."""
        self._add(wait, -1)

    def _add(self, wait: Wait, number: int) -> None:
        self._total += number
        _count(self._by_client, wait.client, number)
        _count(self._by_site, wait.site, number)
        _count(self._by_line, wait.line, number)


def _count(counts: Counter[_Key], key: _Key, number: int) -> None:
    """Add to a count; one of zero is not kept."""
    counts[key] += number
    if not counts[key]:
        del counts[key]
