"""Which connections of strangers are let in, before anybody has proved who it is.

Each holds a place until it ends, and for at least `hold_secs`: so the places bound how many there
are at once, and also how many there can be in a minute. Who proves to be a node gives its place
back at once. One address can hold only a part of all places.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count


@dataclass(slots=True)
class _Place:
    address: str
    until: float
    is_open: bool = True


class Strangers:
    """The places. Times are monotonic seconds."""

    __slots__ = ("_hold_secs", "_limit", "_number", "_per_address", "_places")

    def __init__(self, limit: int, per_address: int, hold_secs: float) -> None:
        self._hold_secs = hold_secs
        self._limit = limit
        self._number = count()
        self._per_address = per_address
        self._places: dict[int, _Place] = {}

    def admit(self, address: str, now: float) -> int | None:
        """Return the number of a place for a connection from this address, None if all are held."""
        for number, place in list(self._places.items()):
            if place.until <= now and not place.is_open:
                del self._places[number]
        held = Counter(place.address for place in self._places.values())
        if held.total() >= self._limit or held[address] >= self._per_address:
            return None
        number = next(self._number)
        self._places[number] = _Place(address, now + self._hold_secs)
        return number

    def proved(self, number: int) -> None:
        """Free a place: who held it is a node."""
        self._places.pop(number, None)

    def ended(self, number: int) -> None:
        """Note the end of a connection, of a stranger or a node."""
        if number in self._places:
            self._places[number].is_open = False
