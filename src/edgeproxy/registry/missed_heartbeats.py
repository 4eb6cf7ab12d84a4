"""Whether this POP could hear the heartbeats of its backends, and from which addresses they come.

A backend whose heartbeat could not be taken is not silent. Where the API had no room for anybody,
or no descriptor, every lease lasts a whole TTL from then; where it turned away one caller, the
leases of that caller do. So a crowd can keep dead backends in the table, where failed dials and
probes keep clients from them; it can never remove healthy ones.

What waits to be accepted may hold heartbeats, too: then the POP is behind, and judges no lease.

The address of a backend is that of its row, and the one that its last heartbeat came from.
For the control plane's event loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from edgeproxy.core.admission.client_key import key_of
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.leases import Leases

COUNT_SECS = 1.0
"""How old the count of leases by address may be: many callers may be judged in that time."""


class MissedHeartbeats:
    """What this POP may have missed. `now` is in monotonic seconds.

    Attributes:
        is_behind: Whether callers wait to be accepted.
    """

    def __init__(self, leases: Leases, backends: Callable[[], Mapping[str, Backend]]) -> None:
        self.is_behind = False
        self._leases = leases
        self._backends = backends
        self._caller_of: dict[str, str] = {}  # the keys of callers, by id
        self._count_of: Counter[str] = Counter()
        self._count_due_at = float("-inf")
        self._missed_everyone = False
        self._missed: set[str] = set()

    def heard(self, backend_id: str, caller: str) -> None:
        """Note that a registration or heartbeat of this backend came from this address."""
        if backend_id in self._leases:
            self._caller_of[backend_id] = key_of(caller)
        if len(self._caller_of) > 2 * len(self._leases) + 1000:
            self._forget_others()

    def leases_of(self, caller: str, now: float) -> int:
        """Return how many leases the backends at an address have."""
        if now >= self._count_due_at:
            self._count(now)
        return self._count_of[key_of(caller)]

    def missed_everyone(self) -> None:
        """Note that the API could take no caller."""
        self._missed_everyone = True

    def missed(self, caller: str, now: float) -> None:
        """Note that the API turned this caller away, because it asks too fast or too much."""
        if self.leases_of(caller, now):
            self._missed.add(key_of(caller))

    def excuse(self, now: float) -> None:
        """Give every backend that may have sent a heartbeat in vain a whole TTL from now."""
        if self._missed_everyone:
            self._leases.excuse(self._leases.ttl_secs, now)
        elif self._missed:
            for backend_id in list(self._leases):
                if not self._missed.isdisjoint(self._keys_of(backend_id)):
                    self._leases.beat(backend_id, now)
        self._missed_everyone = False
        self._missed.clear()

    def _keys_of(self, backend_id: str) -> set[str]:
        backend = self._backends().get(backend_id)
        keys = {self._caller_of.get(backend_id), key_of(backend.wg_ip) if backend else None}
        return {key for key in keys if key is not None}

    def _count(self, now: float) -> None:
        self._count_due_at = now + COUNT_SECS
        self._forget_others()
        self._count_of = Counter(key for each in self._leases for key in self._keys_of(each))

    def _forget_others(self) -> None:
        """Forget backends that have no lease any more."""
        self._caller_of = {
            backend_id: key
            for backend_id, key in self._caller_of.items()
            if backend_id in self._leases
        }
