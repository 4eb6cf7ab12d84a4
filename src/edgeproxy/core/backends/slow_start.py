"""Slow start: after it comes up, a backend gets its full share of clients only gradually.

The share grows evenly with time, from `LEAST_SHARE` to 1. How a share affects the
choice of a backend is decided in `core/routing/slow_start_turns`.
"""

from __future__ import annotations

from itertools import islice

LEAST_SHARE = 0.1
"""The share of its weight that a backend starts with."""

ADVANCED_AT_ONCE = 500
"""Backends that are told of their share between two clients: to rank them anew takes 2 ms."""


def share(since: float, slow_start_secs: float, now: float) -> float:
    """Return the present share of the weight of a backend that came up at `since`."""
    if slow_start_secs <= 0 or now - since >= slow_start_secs:
        return 1.0
    return max((now - since) / slow_start_secs, LEAST_SHARE)


class SlowStarts:
    """The backends in slow start. For one thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def begin(self, backend_id: str, now: float) -> None:
        """Start a backend that has just come up."""
        self._since[backend_id] = now

    def cancel(self, backend_id: str) -> None:
        """Forget a backend, if it is in slow start."""
        self._since.pop(backend_id, None)

    def advance(self, slow_start_secs: float, now: float) -> list[tuple[str, float]]:
        """Return the present share of backends in slow start; one with a share of 1 leaves.

        Of more than `ADVANCED_AT_ONCE` those whose turn is longest ago.
        """
        due = list(islice(self._since.items(), ADVANCED_AT_ONCE))
        shares = [(backend_id, share(since, slow_start_secs, now)) for backend_id, since in due]
        for (backend_id, part), (_, since) in zip(shares, due, strict=True):
            del self._since[backend_id]
            if part < 1.0:
                self._since[backend_id] = since
        return shares
