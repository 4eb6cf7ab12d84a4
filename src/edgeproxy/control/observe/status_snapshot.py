"""The state of the running proxy at one moment, as values.

`as_json` is the answer of `GET /status` on the control socket; its keys are public. Backends are
read one by one while an answer is made of them: there may be very many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.control.observe.json_pieces import encoded, with_array
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot


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
    backends: Iterable[BackendSnapshot] = field(default=())

    def as_json(self, rest: Pause = no_pause) -> Iterator[bytes]:
        """Yield all fields as JSON, in pieces."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "backends"}
        backends = (encoded(_backend_as_json(each)) for each in paced(self.backends, rest))
        yield from with_array(plain, "backends", backends)


def _backend_as_json(snapshot: BackendSnapshot) -> dict[str, Any]:
    backend, counters = snapshot.backend, snapshot.counters
    return {
        "id": backend.id,
        "app": backend.app,
        "region": backend.region,
        "active": snapshot.active,
        "soft_limit": backend.soft_limit,
        "hard_limit": backend.hard_limit,
        "weight": backend.weight,
        "circuit": snapshot.circuit,
        "up": snapshot.up,
        "draining": snapshot.draining,
        "bytes_in": snapshot.all_bytes_in,
        "bytes_out": snapshot.all_bytes_out,
        "warm": snapshot.warm,
        "connections": counters.connections,
        "errors": counters.errors,
        "rtt_secs": counters.rtt_secs / max(sum(counters.rtt), 1),
        "state": snapshot.state,
    }
