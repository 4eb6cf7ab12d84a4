"""A token bucket for each client; see `edgeproxy.core.admission.rate_limit`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from edgeproxy.core.admission.client_key import key_of
from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings
from edgeproxy.core.geo.address import normalise

Address = str | IPv4Address | IPv6Address


class RateLimiter:
    """Limits the requests of each client. Safe to use from several threads.

    Args:
        max_requests: Requests in each window, spread evenly.
        window_secs: Length of a window.
        burst: Requests that a client may make at once after a pause.
        max_clients: Maximum number of clients to remember.
        clock: Returns monotonic seconds.

    A client is an address, as text or from `ipaddress`. Raises ValueError for limits that would
    refuse all clients or none, and TypeError for a client of another type.
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
        numbers = (max_requests, burst, max_clients, window_secs)
        if not (all(map(math.isfinite, numbers)) and min(numbers[:3]) >= 1 and window_secs > 0):
            raise ValueError(
                "max_requests, burst, max_clients must be 1 or more, window_secs > 0; all finite"
            )
        self._limit = RateLimit(
            RateLimitSettings(True, max_requests, window_secs, burst, max_clients)
        )
        self._clock = clock
        self._lock = threading.Lock()

    def check(self, client_ip: Address) -> bool:
        """Count a request. Return False if it is over the limit. IPv6 counts per /64."""
        with self._lock:
            return self._limit.take(_key(client_ip), self._clock())

    def remaining(self, client_ip: Address) -> int:
        """Return how many requests this client may make at once, now."""
        with self._lock:
            return self._limit.remaining(_key(client_ip), self._clock())

    def __len__(self) -> int:
        """Return the number of clients in memory."""
        return len(self._limit)


def _key(client_ip: Address) -> str:
    """Return the key of a client's bucket."""
    if not isinstance(client_ip, Address):
        raise TypeError(
            f"a client must be text, such as '192.0.2.1', or an ipaddress object, not {client_ip!r}"
        )
    return key_of(normalise(str(client_ip)))
