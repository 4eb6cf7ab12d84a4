"""The state of the running proxy at one moment, as values.

`as_json` is the answer of `GET /status` on the control socket; its keys are public. Backends are
read one by one while an answer is made of them: there may be very many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeproxy.control.observe.json_pieces import encoded, with_array
from edgeproxy.core.metrics import Histogram
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

MAX_SKIPPED = 10
DECISION_LABELS = ("how", "client_region", "backend_region")
"""What `decisions` are counted by, in this order."""


class ListenerSnapshot(NamedTuple):
    """One listener: its address, its mode, and why it could not be opened or changed, or ""."""

    address: str
    mode: str
    fault: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the proxy stands on: where everything is, and whether it can be used.

    Attributes:
        database: The name of the routing database.
        database_fault: Why it cannot be read; "" if it can.
        skipped: Ids of rows that cannot be used, `MAX_SKIPPED` at most.
        rows_skipped_now: How many there are.
        config_file, control_socket, access_log: Paths; None without.
        metrics, api: Where they are served; None if they are not.
        cluster: What is known of the other POPs; None without replication.
    """

    database: str = ""
    database_fault: str = ""
    skipped: tuple[str, ...] = ()
    rows_skipped_now: int = 0
    listeners: tuple[ListenerSnapshot, ...] = ()
    config_file: str | None = None
    control_socket: str | None = None
    access_log: str | None = None
    metrics: str | None = None
    api: str | None = None
    cluster: Mapping[str, Any] | None = None


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
    decisions: dict[tuple[str, str, str], int] = field(default_factory=dict)
    session_secs: Histogram = field(default_factory=lambda: Histogram(()))
    first_byte_secs: Histogram = field(default_factory=lambda: Histogram(()))
    surroundings: Surroundings = field(default_factory=Surroundings)
    pid: int = 0
    pool_hits: int = 0
    pool_misses: int = 0
    pool_dropped: int = 0
    backends: Iterable[BackendSnapshot] = field(default=())

    def as_json(self, rest: Pause = no_pause) -> Iterator[bytes]:
        """Yield all fields as JSON, in pieces."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "backends"}
        around = plain["surroundings"]
        plain["surroundings"] = {name: getattr(around, name) for name in around.__slots__}
        plain["surroundings"]["listeners"] = [each._asdict() for each in around.listeners]
        plain["decisions"] = [
            dict(zip((*DECISION_LABELS, "count"), (*kind, count), strict=True))
            for kind, count in sorted(self.decisions.items())
        ]
        for name in ("session_secs", "first_byte_secs"):
            histogram: Histogram = plain[name]
            plain[name] = {"count": sum(histogram.counts), "sum": histogram.total}
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
        "fault": snapshot.fault or None,
        "last_error": counters.last_error or None,
        "last_error_secs_ago": snapshot.error_age_secs,
    }
