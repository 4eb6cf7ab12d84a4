"""The state of the running proxy at one moment, as values.

`backend_snapshot` is the only place that turns a candidate into the record that the metrics page,
`edgeproxy status` and `edgeproxy top` show. `as_json` is the answer of `GET /status`; its keys are
public.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeproxy.core.backends.breaker import circuit_of
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.routing.ranking import Candidate


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """One backend at one moment.

    Attributes:
        counters: Its counters; their bytes are those of ended sessions.
        bytes_in, bytes_out: Bytes of the sessions that are still open.
        warm: Idle connections in the pool.
        up: The result of its health checks; None without health checks.
    """

    id: str
    app: str
    region: str
    active: int
    soft_limit: int
    hard_limit: int
    weight: int
    circuit: Circuit
    up: bool | None
    draining: bool
    counters: BackendCounters
    bytes_in: int = 0
    bytes_out: int = 0
    warm: int = 0

    @property
    def all_bytes_in(self) -> int:
        """Bytes from clients to the backend, of ended and open sessions."""
        return self.counters.bytes_in + self.bytes_in

    @property
    def all_bytes_out(self) -> int:
        """Bytes from the backend to clients, of ended and open sessions."""
        return self.counters.bytes_out + self.bytes_out

    def as_json(self) -> dict[str, Any]:
        """Return the fields and counters as JSON can hold them."""
        counters = self.counters
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name != "counters"},
            "connections": counters.connections,
            "errors": counters.errors,
            "bytes_in": self.all_bytes_in,
            "bytes_out": self.all_bytes_out,
            "rtt_secs": counters.rtt_secs / max(sum(counters.rtt), 1),
        }


def backend_snapshot(
    candidate: Candidate, now: float, *, up: bool | None, warm: int, carried: tuple[int, int]
) -> BackendSnapshot:
    """Return a backend as it is now.

    `carried` are the bytes of its open sessions, from clients and to clients.
    """
    backend, live = candidate.backend, candidate.live
    bytes_in, bytes_out = carried
    return BackendSnapshot(
        id=backend.id,
        app=backend.app,
        region=backend.region,
        active=live.active,
        soft_limit=backend.soft_limit,
        hard_limit=backend.hard_limit,
        weight=backend.weight,
        circuit=circuit_of(live, now),
        up=up,
        draining=live.draining,
        counters=live.counters,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        warm=warm,
    )


def state_text(*, draining: bool, up: bool | None, circuit: str) -> str:
    """Return what keeps new clients from a backend, or `ok`."""
    states = ["draining"] if draining else []
    if up is False:
        states.append("down")
    if circuit != Circuit.CLOSED:
        states.append(f"circuit {circuit}")
    return ", ".join(states) or "ok"


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """The whole process at one moment."""

    version: str
    engine: str
    region: str
    connections: int
    active: int
    bytes_in: int
    bytes_out: int
    failovers: int
    refused: dict[str, int]
    closed: dict[str, int]
    dial_failures: dict[str, int]
    bindings: int
    rate_limited_clients: int
    table_version: int
    table_age_secs: float
    rows_skipped: int
    reload_errors: int
    loop_lag_secs: float
    descriptors: int
    uptime_secs: float
    access_lines_dropped: int = 0
    database_up: bool = True
    leases: int = 0
    leases_expired: int = 0
    leases_held_back: int = 0
    connections_by_app: dict[str, int] = field(default_factory=dict)
    refused_by_app: dict[str, dict[str, int]] = field(default_factory=dict)
    certificates: tuple[int, float] | None = None
    pool_hits: int = 0
    pool_misses: int = 0
    pool_dropped: int = 0
    backends: tuple[BackendSnapshot, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON can hold them."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["backends"] = [backend.as_json() for backend in self.backends]
        return plain
