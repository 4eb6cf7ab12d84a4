"""Bounds the clients that are not admitted yet: in their preambles and handshakes.

Such a client holds a descriptor and need not do anything. So one client may have no more of them
than a part of the descriptors, and one site twice as much. Once half of the descriptors are taken
in this way, each gets few: the other half is for those who have none yet.
"""

from __future__ import annotations

from edgeproxy.core.admission.client_counts import ClientCounts
from edgeproxy.core.admission.client_key import site_of

_PART = 8
"""One client may take this part of the descriptors, and one site two of them."""
_CROWDED_PART = 256
"""The same once half of the descriptors are taken."""
_LEAST = 4
"""However few descriptors there are, a client may have as many."""


class Arrival:
    """What one client holds of the limits until it is admitted or has gone.

    Attributes:
        client: Its address, once that is known and it was checked; "" before.
        key: What it is counted by here; "" if it is not counted.
        entered: The key for `AccessControl.leave`; None if its connections are not counted.
    """

    __slots__ = ("client", "entered", "key")

    def __init__(self) -> None:
        self.client = ""
        self.key = ""
        self.entered: str | None = None


class Arrivals:
    """Counts the clients that are not admitted yet.

    Attributes:
        room: The descriptors that there are for clients; 0: nothing is bounded.
    """

    def __init__(self) -> None:
        self.room = 0
        self._total = 0
        self._counts = ClientCounts()

    def __len__(self) -> int:
        """Return how many clients are not admitted yet."""
        return self._total

    def has_room(self, key: str) -> bool:
        """Return whether this client may begin another preamble or handshake."""
        if not self.room:
            return True
        part = _PART if self._total * 2 < self.room else _CROWDED_PART
        most = max(self.room // part, _LEAST)
        if self._counts.get(key, 0) >= most:
            return False
        site = site_of(key)
        return not site or self._counts.get(site, 0) < 2 * most

    def enter(self, key: str) -> None:
        """Count a client."""
        self._total += 1
        self._counts.enter(key)

    def leave(self, key: str) -> None:
        """A client that was counted has been admitted, or has gone."""
        self._total -= 1
        self._counts.leave(key)
