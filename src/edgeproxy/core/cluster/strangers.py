"""Which connections of strangers are let in, before anybody has proved who it is.

Each holds a place for `hold_secs`, also when it has failed meanwhile: so the places bound how many
there are at once, and also how many there can be in a minute. Who proves to be a node gives its
place back at once. One address can hold only a part of all places.
"""

from __future__ import annotations

from collections import Counter
from itertools import count


class Strangers:
    """The places. Times are monotonic seconds."""

    __slots__ = ("_hold_secs", "_limit", "_number", "_per_address", "_places")

    def __init__(self, limit: int, per_address: int, hold_secs: float) -> None:
        self._limit = limit
        self._per_address = per_address
        self._hold_secs = hold_secs
        self._places: dict[int, tuple[float, str]] = {}  # until when, whose; the oldest first
        self._number = count()

    def admit(self, address: str, now: float) -> int | None:
        """Return the number of a place for a connection from this address, None if there is none.

        `now` never goes back.
        """
        for number, (until, _) in list(self._places.items()):
            if until > now:
                break
            del self._places[number]
        taken = Counter(whose for _, whose in self._places.values())
        if taken.total() >= self._limit or taken[address] >= self._per_address:
            return None
        number = next(self._number)
        self._places[number] = (now + self._hold_secs, address)
        return number

    def proved(self, number: int) -> None:
        """Free a place: who held it is a node."""
        self._places.pop(number, None)
