"""Limits how fast each client opens connections: one token bucket per client.

A bucket holds `burst` tokens and starts full; `max_requests` tokens arrive every `window_secs`,
and each connection takes one. The only state of a client is the time at which its bucket will be
full again. So nothing is rounded: a limit of 100 a second admits 100 in every second, in whatever
pattern the client connects. A bucket that is full again needs no entry.

This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371, annex A).

The table is bounded. When it is full, the client seen longest ago is dropped; it has a full
bucket when it comes back.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_SLACK_SECS = 1e-6
"""Allowance for rounding: a float of monotonic seconds loses digits as the uptime grows."""


@dataclass(frozen=True, slots=True)
class RateLimitSettings:
    """How fast one client may open connections.

    Attributes:
        enabled: Whether there is a limit.
        max_requests: New connections in each window.
        window_secs: Length of a window.
        burst: Connections that a client may open at once after a pause.
        max_clients: Maximum number of buckets in memory.
    """

    enabled: bool = False
    max_requests: int = 100
    window_secs: float = 1.0
    burst: int = 10
    max_clients: int = 262_144


class RateLimit:
    """The buckets of all clients. `key` identifies a client (`access.key_of`)."""

    def __init__(self, settings: RateLimitSettings) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._seen_at = 0.0
        self._use(settings)

    def _use(self, settings: RateLimitSettings) -> None:
        self._settings = settings
        self._token_secs = settings.window_secs / settings.max_requests
        self._bucket_secs = self._token_secs * settings.burst + _SLACK_SECS

    def change(self, settings: RateLimitSettings) -> None:
        """Apply new settings, as of the last `take` or `sweep`.

        Each bucket keeps the number of tokens it lacks, at most as many as the new bucket holds.
        So a client waits by the new rate only.
        """
        before, since = self._token_secs, self._seen_at
        is_same = (before, self._settings.burst) == (
            settings.window_secs / settings.max_requests,
            settings.burst,
        )
        self._use(settings)
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
        """Return how many clients have a bucket in memory."""
        return len(self._full_at)

    def take(self, key: str, now: float) -> bool:
        """Take a token. Return False if the bucket is empty."""
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
        """Drop up to `most` clients whose buckets are full, the oldest first."""
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
