"""Decides who finds room at the API: how many connections there may be, in all and of one caller.

Callers that the API does not allow share a few connections, on which they hear why. All others
share `most`; one of them may have half. Beyond these there is a reserve, of connections and of
descriptors, that only addresses with registered backends may use: their heartbeats come through
when others hold all there is. An address may use it up to one connection for each of its backends
and a few more, and never more than half of the reserve.

Whoever finds no room is told to `MissedHeartbeats`, so that no lease expires for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from edgeproxy.core.admission.client_key import key_of
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats

MAX_CONNECTIONS = 4096
PART_OF_ONE = 2
"""The maximum number of connections is divided by this for one caller: half of them."""
RESERVED_PART = 4
"""The reserve is a further quarter of the maximum number of connections."""
MORE_THAN_BACKENDS = 4
"""Connections that an address may have besides one for each of its backends."""
DENIED = "denied"
"""The key that counts the connections of all callers that the API does not allow."""
MAX_DENIED = 64


@dataclass(frozen=True, slots=True)
class Room:
    """How much there is.

    Attributes:
        most: The maximum number of connections without the reserve.
        ceiling: The first descriptor number that is too high for those.
        reserve_ceiling: The same for the reserve.
    """

    most: int
    ceiling: int
    reserve_ceiling: int


class Place(NamedTuple):
    """A connection that has been counted."""

    key: str
    caller: str

    @property
    def is_denied(self) -> bool:
        """Whether the API does not allow this caller."""
        return self.key == DENIED


class ConnectionLimits:
    """Counts connections. For one event loop."""

    def __init__(
        self, allows: Callable[[str], bool], missed_heartbeats: MissedHeartbeats, room: Room
    ) -> None:
        self._allows = allows
        self._missed_heartbeats = missed_heartbeats
        self._most = min(room.most, MAX_CONNECTIONS)
        self._reserve = max(self._most // RESERVED_PART, PART_OF_ONE)
        self._ceiling = room.ceiling
        self._reserve_ceiling = room.reserve_ceiling
        self._count_of: Counter[str] = Counter()
        self.total = 0

    def enter(self, caller: str, descriptor: int, now: float) -> Place | None:
        """Count a new connection, or return None if it is one too many.

        `caller` is an address in normal form.
        """
        if not self._allows(caller):
            most = min(MAX_DENIED, max(self._most // RESERVED_PART, 1))
            key, finds_room = DENIED, self._is_free(DENIED, most, descriptor)
        else:
            key = key_of(caller)
            finds_room = self._is_free(
                key, self._most // PART_OF_ONE, descriptor
            ) or self._is_reserved(key, self._missed_heartbeats.leases_of(caller, now), descriptor)
        if not finds_room:
            if key != DENIED:
                self._tell(caller, key, now)
            return None
        self._count_of[key] += 1
        self.total += 1
        return Place(key, caller)

    def leave(self, place: Place) -> None:
        """A connection has ended."""
        self.total -= 1
        self._count_of[place.key] -= 1
        if not self._count_of[place.key]:
            del self._count_of[place.key]

    def _is_free(self, key: str, most: int, descriptor: int) -> bool:
        return self.total < self._most and self._count_of[key] < most and descriptor < self._ceiling

    def _is_reserved(self, key: str, leases: int, descriptor: int) -> bool:
        most = min(leases + MORE_THAN_BACKENDS, max(self._reserve // PART_OF_ONE, 1))
        return (
            leases > 0
            and self.total < self._most + self._reserve
            and self._count_of[key] < most
            and descriptor < self._reserve_ceiling
        )

    def _tell(self, caller: str, key: str, now: float) -> None:
        """Note whose heartbeats could not come through: this caller's, or anybody's."""
        if self._count_of[key] >= self._most // PART_OF_ONE:
            self._missed_heartbeats.missed(caller, now)
        else:
            self._missed_heartbeats.missed_everyone()
