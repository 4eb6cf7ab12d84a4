"""How fast clients may open connections: a token bucket for each.

A bucket holds `burst` tokens and starts full; `max_requests` tokens arrive in every `window_secs`,
one connection takes one. What is kept for a client is a single time: when its bucket will be
full again. So nothing is rounded: a client that is held to 100 in a second gets 100 in every
second, however oddly it asks, and a bucket that is full again need not be remembered.

This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A).

The table is bounded: where it is full, the client that was seen longest ago makes room, and
has a full bucket when it comes back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_SLACK_SECS = 1e-6
"""Sums of times are exact only to some digits, the fewer the longer the system has been up."""


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """How fast one client may open connections.

    Attributes:
        enabled: Off, everybody may do what they want.
        max_requests: New connections in each window.
        window_secs: Length of a window.
        burst: How many at once, after a pause.
        max_clients: How many clients are remembered.
    """

    enabled: bool = False
    max_requests: int = 100
    window_secs: float = 1.0
    burst: int = 10
    max_clients: int = 262_144


class RateLimit:
    """The buckets of all clients. `key` is whatever names a client."""

    def __init__(self, settings: RateLimitSettings) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._seen_at = 0.0
        self._go_by(settings)

    def _go_by(self, settings: RateLimitSettings) -> None:
        self._settings = settings
        self._token_secs = settings.window_secs / settings.max_requests
        self._bucket_secs = self._token_secs * settings.burst + _SLACK_SECS

    def change(self, settings: RateLimitSettings) -> None:
        """Go on with other settings, as of the last time anybody asked or swept.

        What a bucket lacks is kept in tokens, and is never more than all of the new bucket:
        nobody waits by the old rate.
        """
        before, since = self._token_secs, self._seen_at
        is_same = (before, self._settings.burst) == (
            settings.window_secs / settings.max_requests,
            settings.burst,
        )
        self._go_by(settings)
        table = self._full_at
        while len(table) > settings.max_clients:
            table.popitem(last=False)
        if is_same:
            return
        secs, most = self._token_secs / before, self._token_secs * settings.burst
        for key, full_at in table.items():
            if full_at > since:
                table[key] = since + min((full_at - since) * secs, most)

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._full_at)

    def take(self, key: str, now: float) -> bool:
        """Take a token, if there is one. Return whether there was."""
        self._seen_at = now
        full_at = max(self._full_at.get(key, now), now)
        if full_at - now > self._bucket_secs - self._token_secs:
            return False
        table = self._full_at
        table[key] = full_at + self._token_secs
        table.move_to_end(key)
        if len(table) > self._settings.max_clients:
            table.popitem(last=False)
        return True

    def remaining(self, key: str, now: float) -> int:
        """Return how many tokens this client has now."""
        missing_secs = max(self._full_at.get(key, now) - now, 0.0)
        return int(min((self._bucket_secs - missing_secs) / self._token_secs, self._settings.burst))

    def sweep(self, now: float, most: int = 1000) -> int:
        """Forget up to `most` clients whose buckets are full, the oldest first."""
        self._seen_at = now
        table = self._full_at
        forgotten = 0
        while table and forgotten < most:
            key = next(iter(table))
            if table[key] > now:
                break
            del table[key]
            forgotten += 1
        return forgotten
