"""Connections to backends that are made before a client needs them.

A client that gets one does not wait for the handshake. A connection is given to one client, once,
and never taken back: over TCP the proxy cannot know what the backend still sends to that client.

A backend is kept warm from its first client on, until `max_lifetime_secs` after its last one.
Taking a connection begins the next; the kernel finishes the handshake meanwhile, and a connection
that is still in its handshake may be given out too. `tick` refills, and drops ended connections.

Invariants:
* Slots in use and waiting connections together never exceed a backend's hard limit.
* No connection waits for a backend that takes no clients (`core/routing/eligibility`) or has
  moved.
* A connection that its backend has closed is not given out. One on which the backend has already
  sent bytes is.
* Connections that end are made anew at the next tick, as after a restart of the backend. Only where
  fresh ones end at once the pool rests, each time twice as long.

For the gate thread; only `waiting` may be called on others. A failed dial here never counts as a
failure of the backend, because no client was affected.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.eligibility import Ineligible, ineligible
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.engine import dial
from edgeproxy.engine.descriptors import ceiling

BEGUN_AT_ONCE = 2
"""Connections begun for one that is taken; the next tick begins the rest."""
BEGUN_IN_A_TICK = 500
"""Over all backends: beginning one takes 25 µs, during which no client is given a backend."""
LIVED_SECS = 0.5
"""A connection that was usable at this age has not ended at once."""
FIRST_REST_SECS = 1.0
"""How long none is begun after a fresh one has ended at once; doubles up to the timeout."""
ANSWER_SECS = 1.0
"""A dial unanswered for this long has lost its SYN, and the kernel may repeat it much later."""
DESCRIPTOR_SHARE = 0.75
"""Descriptors beyond this share of the engine's are left to clients."""
GIVEN_WAY = 2
"""Pooled connections closed to free descriptors for one client (it needs two)."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many connections are made in advance.

    Attributes:
        enabled: Whether connections are made in advance.
        max_per_backend: Maximum number of unused connections to each backend.
        idle_timeout_secs: How long a connection may stay unused.
        max_lifetime_secs: Maximum age of a connection, and how long after its last client a
            backend is kept warm.
        connect_timeout_secs: How long a handshake may take; after one that took longer, no
            connection to that backend is begun for the same time.
    """

    enabled: bool = False
    max_per_backend: int = 10
    idle_timeout_secs: float = 60.0
    max_lifetime_secs: float = 300.0
    connect_timeout_secs: float = 5.0


class _State(Enum):
    CONNECTING = auto()
    READY = auto()
    ENDED = auto()


@dataclass(eq=False, slots=True)
class _Waiting:
    tcp: socket.socket
    begun_at: float
    has_lived: bool = False


class _BackendPool:
    """The unused connections to one backend.

    Attributes:
        address: The address of the backend.
        waiting: The connections, the oldest first.
        wanted_at: When a client was last sent to the backend.
        rests_until: No connection is begun before this time.
        rest_secs: How long it rested last; 0 if a connection has lived since.
        lost_at: When a connection that had lived was found ended.
    """

    __slots__ = ("address", "lost_at", "rest_secs", "rests_until", "waiting", "wanted_at")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.waiting: deque[_Waiting] = deque()
        self.wanted_at = 0.0
        self.rests_until = 0.0
        self.rest_secs = 0.0
        self.lost_at = -1.0

    def found_ended(self, each: _Waiting, now: float, longest_secs: float) -> None:
        """A connection has ended: rest only if it never lived, and no other one did."""
        if each.has_lived:
            self.lost_at = self.rests_until = now
            self.rest_secs = 0.0
        elif self.lost_at != now:
            self.rest(now, longest_secs)

    def rest(self, now: float, longest_secs: float) -> None:
        """Begin no connection for a while."""
        if now >= self.rests_until:
            self.rest_secs = min(max(2 * self.rest_secs, FIRST_REST_SECS), longest_secs)
            self.rests_until = now + self.rest_secs

    def close(self) -> None:
        while self.waiting:
            self.waiting.popleft().tcp.close()


class WarmPool:
    """The connections that wait, by backend."""

    def __init__(self, settings: PoolSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._longest_secs = min(settings.idle_timeout_secs, settings.max_lifetime_secs)
        self._pools: dict[str, _BackendPool] = {}
        self._is_closed = False

    def take(self, candidate: Candidate, now: float) -> int:
        """Return the descriptor of a connection for a client whose slot is reserved, or -1.

        The caller closes it. It may still be connecting.
        """
        pool = self._pool_of(candidate)
        pool.wanted_at = now
        chosen = self._pick(pool, now)
        if not self._fill(pool, candidate, now, BEGUN_AT_ONCE):
            self._give_way()
        if chosen is None:
            self._metrics.pool_misses += 1
            return -1
        self._metrics.pool_hits += 1
        return chosen.tcp.detach()

    def tick(self, candidates: Mapping[str, Candidate], now: float) -> None:
        """Close connections that cannot be used any more, and begin new ones."""
        left = BEGUN_IN_A_TICK
        for backend_id, pool in list(self._pools.items()):
            candidate = candidates.get(backend_id)
            is_wanted = now - pool.wanted_at < self._settings.max_lifetime_secs
            if candidate is None or not is_wanted or not _may_wait(pool, candidate, now):
                del self._pools[backend_id]
                pool.close()
                continue
            for each in list(pool.waiting):
                self._check(pool, each, now)
            while len(pool.waiting) > max(candidate.limit - candidate.live.active, 0):
                pool.waiting.pop().tcp.close()
            before = len(pool.waiting)
            self._fill(pool, candidate, now, left)
            left -= len(pool.waiting) - before

    def waiting(self) -> dict[str, int]:
        """Return how many connections wait for each backend. Any thread."""
        return {key: len(pool.waiting) for key, pool in list(self._pools.items())}

    def close(self) -> None:
        """Close all unused connections, and begin no more."""
        self._is_closed = True
        for pool in self._pools.values():
            pool.close()

    def _pool_of(self, candidate: Candidate) -> _BackendPool:
        backend = candidate.backend
        address = (backend.wg_ip, backend.port)
        pool = self._pools.get(backend.id)
        if pool is None or pool.address != address:
            if pool is not None:
                pool.close()
            pool = self._pools[backend.id] = _BackendPool(address)
        return pool

    def _pick(self, pool: _BackendPool, now: float) -> _Waiting | None:
        """Take the oldest ready connection, else the oldest that may still become ready.

        One that should be ready by now is closed, to make room for a new dial.
        """
        for each in list(pool.waiting):
            if self._check(pool, each, now) is _State.READY:
                pool.waiting.remove(each)
                return each
        if not pool.waiting:
            return None
        oldest = pool.waiting.popleft()
        if now - oldest.begun_at < ANSWER_SECS:
            return oldest
        oldest.tcp.close()
        self._metrics.pool_dropped += 1
        return None

    def _check(self, pool: _BackendPool, each: _Waiting, now: float) -> _State:
        """Return the state of a connection; close it if it cannot be used any more."""
        state = _state(each)
        age_secs = now - each.begun_at
        timeout_secs = self._settings.connect_timeout_secs
        if state is _State.READY and age_secs >= LIVED_SECS:
            each.has_lived = True
            pool.rest_secs = 0.0
        if state is _State.ENDED:
            pool.found_ended(each, now, timeout_secs)
        elif state is _State.CONNECTING and age_secs >= timeout_secs:
            pool.rests_until = now + timeout_secs
        elif age_secs < self._longest_secs:
            return state
        pool.waiting.remove(each)
        each.tcp.close()
        self._metrics.pool_dropped += 1
        return _State.ENDED

    def _fill(self, pool: _BackendPool, candidate: Candidate, now: float, most: int) -> bool:
        """Begin up to `most` connections, as far as there is room for them.

        None while the backend is on trial: only clients show whether it works. None while probes
        report it down, although clients may get it when all others are reported down, too. Return
        False if descriptors ran out.
        """
        live = candidate.live
        is_on_trial = live.failures or not live.takes_clients or live.circuit is not Circuit.CLOSED
        if self._is_closed or is_on_trial or now < pool.rests_until:
            return True
        free = candidate.limit - live.active
        room = min(self._settings.max_per_backend, free) - len(pool.waiting)
        while room > 0 and most > 0:
            room, most = room - 1, most - 1
            try:
                tcp = dial.begin(pool.address, int(ceiling() * DESCRIPTOR_SHARE))
            except dial.DialError as error:
                if error.may_wait:  # what waits stays, or it would be made again at the next tick
                    return False
                pool.rest(now, self._settings.connect_timeout_secs)
                return True
            pool.waiting.append(_Waiting(tcp, now))
        return True

    def _give_way(self) -> None:
        """Free descriptors for a client: close connections to the backend that has the most."""
        for _ in range(GIVEN_WAY):
            fullest = max(self._pools.values(), key=lambda pool: len(pool.waiting))
            if fullest.waiting:
                fullest.waiting.popleft().tcp.close()


def _may_wait(pool: _BackendPool, candidate: Candidate, now: float) -> bool:
    """Return whether connections may wait for this backend."""
    backend = candidate.backend
    if pool.address != (backend.wg_ip, backend.port):
        return False
    return ineligible(backend, candidate.live, now, is_bound=True) in (None, Ineligible.FULL)


def _state(each: _Waiting) -> _State:
    """Return what has become of a connection."""
    poll = select.poll()
    poll.register(each.tcp, select.POLLOUT | select.POLLRDHUP)
    found = poll.poll(0)
    if not found:
        return _State.CONNECTING
    if found[0][1] & (select.POLLERR | select.POLLHUP | select.POLLRDHUP):
        return _State.ENDED
    return _State.READY
