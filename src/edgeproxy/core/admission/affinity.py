"""Client affinity: remembers which backend each client is bound to.

A binding lives for exactly `ttl_secs` after its last use: a lookup checks its age and does not
depend on sweeping. Bindings are in order of their last use, so sweeping and evicting take from the
front and cost only what they remove. There are never more than `max_bindings`: a new one evicts
the one unused for longest.

A block (`client_key`) that has more than a quarter of `max_bindings` leaves free as much as all
others have. Beyond that it replaces its own oldest binding or gets none, and is served all the
same: whoever owns a prefix cannot push out everybody else's bindings.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from edgeproxy.core.admission.client_key import block_of
from edgeproxy.core.routing.eligibility import OF_THE_MOMENT, ineligible
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.core.routing.table import RoutingTable

MAX_SWEPT = 1000
"""Bindings that one sweep removes: it runs between two decisions and takes under 1 ms."""

_BLOCK_PART = 4
"""The part of the bindings that every block may have,"""
_LEAST_PER_BLOCK = 64
"""and the number that it may always have."""
_SPARE_SWEPT = 16
"""Expired bindings that are removed when a block has its part: some may be its own."""

Key = tuple[str, str]
"""The key of a client (`client_key`) and the scope it connected to."""


@dataclass(frozen=True, slots=True)
class AffinitySettings:
    """How long clients stay with their backend.

    Attributes:
        ttl_secs: How long a binding outlives its last use; 0: clients are not bound.
        gc_interval_secs: How often expired bindings are removed from memory.
        max_bindings: Bindings kept at most.
    """

    ttl_secs: float = 600.0
    gc_interval_secs: float = 60.0
    max_bindings: int = 262_144


class Affinity:
    """The bindings of this POP."""

    def __init__(self, settings: AffinitySettings) -> None:
        self._settings = settings
        self._bindings: OrderedDict[Key, tuple[str, float]] = OrderedDict()
        self._by_block: dict[str, int] = {}
        self._part = max(settings.max_bindings // _BLOCK_PART, _LEAST_PER_BLOCK)
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._bindings)

    def get(self, key: Key, now: float) -> str | None:
        """Return the backend this client is bound to, if the binding is still alive."""
        binding = self._bindings.get(key)
        if binding is None:
            return None
        if binding[1] <= now:
            self.drop(key)
            return None
        return binding[0]

    def usable(self, key: Key, now: float, table: RoutingTable) -> Candidate | None:
        """Return the backend this client is bound to, if it can be used now."""
        # Runs once for every client, so `_bound` is written out here.
        backend_id = self.get(key, now)
        if backend_id is None:
            return None
        candidate = table.candidates.get(backend_id)
        if candidate is None or not table.serves(candidate, key[1]):
            return None
        reason = ineligible(candidate.backend, candidate.live, now, True)
        return candidate if reason is None else None

    def kept(self, key: Key, now: float, table: RoutingTable) -> str | None:
        """Return the backend of a binding to keep, although this connection goes elsewhere."""
        candidate = self._bound(key, now, table)
        if candidate is None:
            return None
        reason = ineligible(candidate.backend, candidate.live, now, True)
        return candidate.backend.id if reason is None or reason in OF_THE_MOMENT else None

    def _bound(self, key: Key, now: float, table: RoutingTable) -> Candidate | None:
        """Return the backend this client is bound to, if the table still has it for the scope."""
        backend_id = self.get(key, now)
        candidate = table.candidates.get(backend_id) if backend_id else None
        return candidate if candidate is not None and table.serves(candidate, key[1]) else None

    def bind(self, key: Key, backend_id: str, now: float) -> None:
        """Bind a client, or keep its binding alive."""
        ttl_secs = self._settings.ttl_secs
        if not ttl_secs:
            return
        bindings, most = self._bindings, self._settings.max_bindings
        if key in bindings:
            if len(bindings) >= most and self._excess(block_of(key[0])) > 0:
                self.drop(key)
                return
            bindings[key] = (backend_id, now + ttl_secs)
            bindings.move_to_end(key)
            return
        block = block_of(key[0])
        has = self._by_block.get(block, 0)
        if has >= self._part:
            if self._excess(block) >= 0 and not self._make_room(block, now):
                return
            has = self._by_block.get(block, 0)
        bindings[key] = (backend_id, now + ttl_secs)
        self._by_block[block] = has + 1
        if len(bindings) > most:
            self.drop(next(iter(bindings)))

    def _excess(self, block: str) -> int:
        """Return how many bindings a block has more than it may have."""
        has = self._by_block.get(block, 0)
        others = len(self._bindings) - has
        return has - max(self._part, self._settings.max_bindings - 2 * others)

    def _make_room(self, block: str, now: float) -> bool:
        """Remove a binding of a block that has all it may have. Return whether that could be."""
        self._remove_expired(now, _SPARE_SWEPT)
        if self._excess(block) < 0:
            return True
        oldest = next(iter(self._bindings))
        if block_of(oldest[0]) != block:
            return False
        self.drop(oldest)
        return self._excess(block) < 0

    def drop(self, key: Key) -> None:
        """Forget a client's binding."""
        if self._bindings.pop(key, None) is None:
            return
        block = block_of(key[0])
        left = self._by_block[block] - 1
        if left:
            self._by_block[block] = left
        else:
            del self._by_block[block]

    def sweep(self, now: float) -> int:
        """Remove up to `MAX_SWEPT` expired bindings, if a sweep is due. Return how many.

        The rest is due at the next call.
        """
        if now < self._next_sweep:
            return 0
        removed = self._remove_expired(now, MAX_SWEPT)
        if removed < MAX_SWEPT:
            self._next_sweep = now + self._settings.gc_interval_secs
        return removed

    def _remove_expired(self, now: float, most: int) -> int:
        """Remove up to `most` expired bindings. Return how many there were."""
        bindings = self._bindings
        for removed in range(most):
            key = next(iter(bindings), None)
            if key is None or bindings[key][1] > now:
                return removed
            self.drop(key)
        return most
