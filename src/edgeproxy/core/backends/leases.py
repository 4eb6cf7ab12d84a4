"""Which registered backends still show life, and which have been silent for too long.

A lease lasts `ttl_secs` from the last sign of life: a registration or a heartbeat. What is kept is
one time for each, in the order of these times; nothing is written anywhere.

Where most of them fall silent together, it is more likely this POP that hears nobody than most
backends that died. Then no lease expires (`holding`) until most are heard again; whoever is silent
still has one more TTL from then. The rule is that of Eureka's self-preservation mode (Netflix,
"Understanding Eureka Peer to Peer Communication"), with a threshold of one half instead of 15 %,
because a POP has few backends and losing one of three is nothing unusual:

    silent      not heard for `QUIET_PART` of a TTL (heartbeats come every third of it), or expired
                within the last TTL
    held back   if at least `LEAST_QUIET`, and more than half, are silent

A time in which nothing could be heard, because this process was stopped, is nobody's silence
(`excuse`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator

QUIET_PART = 2 / 3
LEAST_QUIET = 3


class Leases:
    """The leases of one POP. `now` is in monotonic seconds.

    Attributes:
        ttl_secs: How long one lasts without a sign of life.
        holding: Whether expiry is held back.
        held_back: How often it began to be.
        expired_total: How many leases have expired.
    """

    def __init__(self, ttl_secs: float) -> None:
        self.ttl_secs = ttl_secs
        self.holding = False
        self.held_back = 0
        self.expired_total = 0
        self._heard: OrderedDict[str, float] = OrderedDict()  # the one silent for longest first
        self._gone: deque[float] = deque()  # when leases expired, within the last TTL

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
        """End a lease, if there is one: it was given up."""
        self._heard.pop(backend_id, None)

    def keep(self, known: Collection[str]) -> list[str]:
        """End the leases of all that are not among these; return whose."""
        gone = [each for each in self._heard if each not in known]
        for each in gone:
            del self._heard[each]
        return gone

    def silence(self, backend_id: str, now: float) -> float | None:
        """Return for how long a backend has been silent, None if it has no lease."""
        heard = self._heard.get(backend_id)
        return None if heard is None else max(now - heard, 0.0)

    def next_at(self) -> float | None:
        """Return when the first lease would expire, None without leases."""
        first = next(iter(self._heard.values()), None)
        return None if first is None else first + self.ttl_secs

    def excuse(self, secs: float, now: float) -> None:
        """Nothing could be heard for so long: everybody has that time on top."""
        for each, heard in self._heard.items():
            self._heard[each] = min(heard + secs, now)

    def expired(self, now: float) -> list[str]:
        """End the leases that are due; return whose. None while expiry is held back."""
        while self._gone and self._gone[0] <= now - self.ttl_secs:
            self._gone.popleft()
        due = self._silent(self.ttl_secs, now)
        if not due and not self.holding:
            return []
        if self._most_are_silent(now):
            self.held_back += not self.holding
            self.holding = True
            return []
        if self.holding:
            self._resume(now)
            return []
        for each in due:
            del self._heard[each]
            self._gone.append(now)
        self.expired_total += len(due)
        return due

    def _silent(self, secs: float, now: float) -> list[str]:
        """Return who has been silent for so long, the longest first."""
        silent = []
        for each, heard in self._heard.items():
            if heard + secs > now:
                break
            silent.append(each)
        return silent

    def _most_are_silent(self, now: float) -> bool:
        silent = len(self._silent(self.ttl_secs * QUIET_PART, now)) + len(self._gone)
        return silent >= LEAST_QUIET and silent * 2 > len(self._heard) + len(self._gone)

    def _resume(self, now: float) -> None:
        """Most are heard again: those that are not yet have as long as anybody."""
        self.holding = False
        self._gone.clear()
        for each in self._silent(self.ttl_secs * QUIET_PART, now):
            self.register(each, now)
