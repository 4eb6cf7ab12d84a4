"""The live state of each backend on this POP: its connections, failures and health.

Only the gate thread changes a `LiveState`; other threads read it. It belongs to the backend's id
and outlives the routing table: an open connection counts however often the table is replaced.
"""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.pacing import Pause, no_pause, paced


class Circuit(StrEnum):
    """The state of a backend's circuit breaker; see `core/backends/breaker`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class LiveState:
    """The live state of one backend.

    Attributes:
        backend_id: The backend.
        address: Where it is in the table in force, or was in the last one that had it.
        active: Reserved slots: connections that are dialing or open.
        turn: Its place among equally loaded backends; see `core/routing/ranking`.
        failures: Dials in a row that failed.
        passed_over_until: New clients pass it over until then (monotonic seconds).
        circuit, successes, trials, early_closes: Its breaker; see `core/backends/breaker`.
        down: Its probes say that it is down; see `core/backends/health`.
        draining: It takes no new clients, not even those bound to it.
        lease_expired: Its lease has expired; it takes no clients. See `core/backends/leases`.
        share: The part of its weight that counts now; see `core/backends/slow_start`.
        counters: Its connections, errors and bytes.
    """

    __slots__ = (
        "active",
        "address",
        "backend_id",
        "circuit",
        "counters",
        "down",
        "draining",
        "early_closes",
        "failures",
        "lease_expired",
        "passed_over_until",
        "share",
        "successes",
        "trials",
        "turn",
    )

    def __init__(self, backend_id: str, address: str = "") -> None:
        self.backend_id = backend_id
        self.address = address
        self.active = 0
        self.turn = 0.0
        self.failures = 0
        self.passed_over_until = 0.0
        self.circuit = Circuit.CLOSED
        self.successes = 0
        self.trials = 0
        self.early_closes = 0
        self.down = False
        self.draining = False
        self.lease_expired = False
        self.share = 1.0
        self.counters = BackendCounters()

    @property
    def takes_clients(self) -> bool:
        """Whether it takes clients as long as it has room: up, leased and not draining."""
        return not (self.draining or self.lease_expired or self.down)

    def __repr__(self) -> str:
        return f"<Live {self.backend_id} active={self.active} failures={self.failures}>"


class BuildWatch(NamedTuple):
    """Which live states change while a table is being built."""

    number: int
    touched: set[str]


class LiveStates:
    """The live state of all backends, by id.

    While another thread builds a table, the gate thread collects the backends whose state changes,
    so that they can be ranked anew when that table comes into force. Each of the two counters has
    one writer, and the gate thread reads them only after it has changed a state. So no change can
    be missed.

    Attributes:
        watches: Number of builds that have begun; written by the building thread.
        settled: Number of the last build whose table came into force; written by the gate thread.
        touched: Ids of the backends whose state has changed since the last build began.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, LiveState] = {}
        self.touched: set[str] = set()
        self.watches = 0
        self.settled = 0

    def of(self, backend_id: str, address: str = "") -> LiveState:
        """Return the live state of this backend, a fresh one at this address for a new backend."""
        live = self._by_id.get(backend_id)
        if live is not None:
            return live
        return self._by_id.setdefault(backend_id, LiveState(backend_id, address))

    def known(self, backend_id: str) -> LiveState | None:
        """Return the live state of this backend if it has one."""
        return self._by_id.get(backend_id)

    def all(self) -> list[LiveState]:
        """Return the live states of all backends that have one."""
        return list(self._by_id.values())

    def watch(self) -> BuildWatch:
        """A build begins: collect the backends whose state changes from now on."""
        self.touched = touched = set[str]()
        self.watches += 1
        return BuildWatch(self.watches, touched)

    def touch(self, live: LiveState) -> None:
        """Note that this state has changed."""
        if self.watches != self.settled:
            self.touched.add(live.backend_id)

    def settle(self, watch: BuildWatch) -> None:
        """The table that was built during this watch has come into force."""
        self.settled = watch.number

    def active(self) -> dict[str, int]:
        """Return the reserved slots of every backend that has any."""
        return {key: live.active for key, live in list(self._by_id.items()) if live.active}

    def forget(self, *known: Container[str], rest: Pause = no_pause) -> None:
        """Drop the states of idle backends that are not draining and not among `known`."""
        for backend_id in paced(list(self._by_id), rest):
            live = self._by_id[backend_id]
            in_use = live.active or live.draining
            if not in_use and not any(backend_id in ids for ids in known):
                del self._by_id[backend_id]
