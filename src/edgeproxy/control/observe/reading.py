"""What is known of the running proxy at one moment, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.backends.live_state import Circuit


@dataclass(frozen=True, slots=True)
class BackendReading:
    """What is known of one backend at one moment.

    Attributes:
        counters: Its counts, of ended sessions as far as bytes go.
        bytes_in, bytes_out: Bytes of the sessions that are still open.
        warm: Unused connections that wait for clients.
        up: What its probes say; None if it is not probed.
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


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What is known of the whole process at one moment."""

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
    backends: tuple[BackendReading, ...] = field(default=())
