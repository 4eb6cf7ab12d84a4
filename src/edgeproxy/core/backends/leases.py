"""The leases of registered backends, and when they expire.

A lease lasts `ttl_secs` from the last registration or heartbeat of its backend. The only state is
that time for each backend, in memory.

If most backends fall silent together, this POP has more likely lost its network than most backends
have died. Then no lease expires (`holding`) until most are heard again; a backend that is still
silent has one more TTL from then. The rule is that of Eureka's self-preservation mode (Netflix,
"Understanding Eureka Peer to Peer Communication"), with a threshold of one half instead of 15 %,
because a POP has few backends and losing one of three is nothing unusual:

    silent      not heard for `QUIET_PART` of a TTL (heartbeats come every third of it), or expired
                within the last TTL
    held back   if at least `LEAST_QUIET`, and more than half, are silent

A backend that has a lease with another POP, too, may well be heard there. Its silence here says
nothing about the network of this POP, so it does not count, and its lease is not held back.

Time in which this process was suspended does not count as silence (`excuse`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Container, Iterator

QUIET_PART = 2 / 3
LEAST_QUIET = 3


class Leases:
    """The leases of one POP. `now` is in monotonic seconds.

    Attributes:
        ttl_secs: How long a lease lasts without a heartbeat.
        holding: Whether expiry is held back.
        held_back: How many times expiry was suspended.
        expired_total: How many leases have expired.
    """

    def __init__(self, ttl_secs: float) -> None:
        self.ttl_secs = ttl_secs
        self.holding = False
        self.held_back = 0
        self.expired_total = 0
        self._heard: OrderedDict[str, float] = OrderedDict()  # longest silence first
        self._gone: deque[float] = deque()  # times of expiry within the last TTL

    def __len__(self) -> int:
        return len(self._heard)

    def __contains__(self, backend_id: object) -> bool:
        return backend_id in self._heard

    def __iter__(self) -> Iterator[str]:
        return iter(self._heard)

    def register(self, backend_id: str, now: float) -> None:
        """Give a backend a lease, or renew it."""
        self._heard[backend_id] = now
        self._heard.move_to_end(backend_id)

    def beat(self, backend_id: str, now: float) -> bool:
        """Renew a lease. Return whether there is one."""
        if backend_id not in self._heard:
            return False
        self.register(backend_id, now)
        return True

    def forget(self, backend_id: str) -> None:
        """End a lease, if there is one, because its backend has deregistered."""
        self._heard.pop(backend_id, None)

    def keep(self, known: Collection[str]) -> list[str]:
        """End the leases of all backends that are not `known`; return the ids of those."""
        gone = [backend_id for backend_id in self._heard if backend_id not in known]
        for backend_id in gone:
            del self._heard[backend_id]
        return gone

    def silence(self, backend_id: str, now: float) -> float | None:
        """Return the seconds since a backend was last heard, None if it has no lease."""
        heard = self._heard.get(backend_id)
        return None if heard is None else max(now - heard, 0.0)

    def next_at(self) -> float | None:
        """Return when the next lease expires, None without leases."""
        first = next(iter(self._heard.values()), None)
        return None if first is None else first + self.ttl_secs

    def excuse(self, secs: float, now: float) -> None:
        """Extend every lease by the seconds in which this process was suspended."""
        for backend_id, heard in self._heard.items():
            self._heard[backend_id] = min(heard + secs, now)

    def left(self, elsewhere: Container[str], now: float) -> list[str]:
        """End the due leases of backends that have one `elsewhere`; return those backends."""
        left = [each for each in self._silent(self.ttl_secs, now) if each in elsewhere]
        for backend_id in left:
            del self._heard[backend_id]
        return left

    def expired(self, now: float, elsewhere: Container[str] = ()) -> list[str]:
        """End the other leases that are due; return their backends. None is due while `holding`."""
        while self._gone and self._gone[0] <= now - self.ttl_secs:
            self._gone.popleft()
        due = [each for each in self._silent(self.ttl_secs, now) if each not in elsewhere]
        if not due and not self.holding:
            return []
        if self._most_are_silent(now, elsewhere):
            if not self.holding:
                self.held_back += 1
            self.holding = True
            return []
        if self.holding:
            self._resume(now)
            return []
        for backend_id in due:
            del self._heard[backend_id]
            self._gone.append(now)
        self.expired_total += len(due)
        return due

    def _silent(self, secs: float, now: float) -> list[str]:
        """Return the backends not heard for `secs`, the longest silence first."""
        silent = []
        for backend_id, heard in self._heard.items():
            if heard + secs > now:
                break
            silent.append(backend_id)
        return silent

    def _most_are_silent(self, now: float, elsewhere: Container[str]) -> bool:
        quiet = self._silent(self.ttl_secs * QUIET_PART, now)
        left = sum(each in elsewhere for each in quiet)
        silent = len(quiet) - left + len(self._gone)
        return silent >= LEAST_QUIET and silent * 2 > len(self) - left + len(self._gone)

    def _resume(self, now: float) -> None:
        """Most backends are heard again: give each silent one another whole TTL."""
        self.holding = False
        self._gone.clear()
        for backend_id in self._silent(self.ttl_secs * QUIET_PART, now):
            self.register(backend_id, now)
