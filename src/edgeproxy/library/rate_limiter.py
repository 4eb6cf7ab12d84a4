"""A token bucket for each client; see `edgeproxy.core.ratelimit`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgeproxy.core.entrance import key_of
from edgeproxy.core.origin import normalise
from edgeproxy.core.ratelimit import RateLimit, RateLimitSettings


class RateLimiter:
    """Limits how often each client may do something. Safe to use from several threads.

    Args:
        max_requests: How many in each window, evenly.
        window_secs: Length of a window.
        burst: How many at once, after a pause.
        max_clients: How many clients are remembered.
        clock: Seconds that only grow.

    Raises ValueError for limits that let nobody through.
    """

    def __init__(
        self,
        max_requests: int = 100,
        window_secs: float = 1.0,
        burst: int = 10,
        *,
        max_clients: int = 262_144,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_requests < 1 or burst < 1 or max_clients < 1 or not window_secs > 0:
            raise ValueError("max_requests, burst and max_clients are 1 or more, window_secs > 0")
        self._limit = RateLimit(
            RateLimitSettings(True, max_requests, window_secs, burst, max_clients)
        )
        self._clock = clock
        self._lock = threading.Lock()

    def check(self, client_ip: str) -> bool:
        """Return whether this client may do it now; if so, it has. IPv6 counts per /64."""
        with self._lock:
            return self._limit.take(key_of(normalise(client_ip)), self._clock())

    def remaining(self, client_ip: str) -> int:
        """Return how often it may do it at once, now."""
        with self._lock:
            return self._limit.remaining(key_of(normalise(client_ip)), self._clock())

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._limit)
