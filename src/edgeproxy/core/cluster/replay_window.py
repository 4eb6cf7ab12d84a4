"""Which numbers of one sender were seen: each is taken once, in any order, unless it is too old.

As in IPsec (RFC 4303 section 3.4.3): what is more than `WINDOW` behind the newest is refused, since
it is not known any longer whether it was seen. Only numbers of authentic messages may be taken.
"""

from __future__ import annotations

WINDOW = 1024
"""Messages of one sender overtake each other by far less than this."""

_MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """The newest number, and which of those before it were seen."""

    __slots__ = ("_newest", "_seen")

    def __init__(self) -> None:
        self._newest = -1
        self._seen = 0

    def is_new(self, number: int) -> bool:
        """Whether a number may still be taken."""
        behind = self._newest - number
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def take(self, number: int) -> None:
        """Note that a number was seen."""
        ahead = number - self._newest
        if ahead > 0:
            self._seen = (self._seen << ahead & _MASK) | 1 if ahead < WINDOW else 1
            self._newest = number
        else:
            self._seen |= 1 << -ahead
