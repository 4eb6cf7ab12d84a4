"""The table of metrics: each row is one metric of the page and says how to read it.

`PROCESS_METRICS` are read from a `StatusSnapshot`, `BACKEND_METRICS` from each of its backends.
The page, the library's counts and the check of the documentation all take their metrics from
here. Rows stand in the order of the page. Names and types are public and never change. "Sent"
and "received" are from this POP's point of view towards its clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from edgeproxy.control.observe.status_snapshot import DECISION_LABELS, StatusSnapshot
from edgeproxy.core.backends.counters import RTT_BUCKETS_SECS
from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.metrics import Histogram
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

ALL_APPS_TEXT = "*"

T = TypeVar("T")


class Kind(StrEnum):
    """The type of a metric, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


SUFFIXES = {Kind.COUNTER: "_total", Kind.INFO: "_info"}
"""What the page appends to the names of these types."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram.

    Attributes:
        buckets: Upper bounds as text, each with the number of values up to it.
        total: The sum of all values.
    """

    buckets: list[tuple[str, float]]
    total: float


Sample = tuple[tuple[str, ...], float | Distribution]
"""The values of a metric's own labels, and its value."""


@dataclass(frozen=True, slots=True)
class Metric(Generic[T]):
    """One metric.

    Attributes:
        name: Its name without the suffix that its type has on the page.
        labels: The names of its own labels. Metrics of backends have `BACKEND_LABELS` before them.
        read: Returns its samples; None leaves the metric off the page.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    read: Callable[[T], Iterable[Sample] | None]

    @property
    def name_on_page(self) -> str:
        """Its name as queries use it; of a histogram, the common part of its names."""
        return self.name + SUFFIXES.get(self.kind, "")


BACKEND_LABELS = ("backend", "region")


def _counter(name: str, text: str, read: Callable[[T], float]) -> Metric[T]:
    """Return the row of a counter without labels of its own."""
    return Metric(name, Kind.COUNTER, text, (), lambda now: (((), read(now)),))


def _gauge(name: str, text: str, read: Callable[[T], float]) -> Metric[T]:
    """Return the row of a gauge without labels of its own."""
    return Metric(name, Kind.GAUGE, text, (), lambda now: (((), read(now)),))


def _sorted(read: Callable[[T], dict[str, int]]) -> Callable[[T], Iterable[Sample]]:
    """Return how to read counts by one label, in the order of its values."""
    return lambda now: [((key,), count) for key, count in sorted(read(now).items())]


def _connections_by_app(now: StatusSnapshot) -> Iterator[Sample]:
    for app, count in sorted(now.connections_by_app.items()):
        yield (app or ALL_APPS_TEXT,), count


def _refused_by_app(now: StatusSnapshot) -> Iterator[Sample]:
    for app, counts in sorted(now.refused_by_app.items()):
        for reason, count in sorted(counts.items()):
            yield (app or ALL_APPS_TEXT, reason), count


def _certificate_errors(now: StatusSnapshot) -> Iterable[Sample] | None:
    return None if now.certificates is None else (((), now.certificates[0]),)


def _certificate_expiry(now: StatusSnapshot) -> Iterable[Sample] | None:
    return None if now.certificates is None else (((), now.certificates[1]),)


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(list(_buckets(histogram.bounds, histogram.counts)), histogram.total)


def _build(now: StatusSnapshot) -> Iterable[Sample]:
    return (((now.version, now.engine, now.region), 1),)


PROCESS_METRICS: tuple[Metric[StatusSnapshot], ...] = (
    _counter("edgeproxy_connections", "Clients given a backend.", lambda now: now.connections),
    _gauge("edgeproxy_connections_active", "Clients being served.", lambda now: now.active),
    _counter("edgeproxy_bytes_sent", "Bytes sent to clients.", lambda now: now.bytes_out),
    _counter("edgeproxy_bytes_received", "Bytes received from clients.", lambda now: now.bytes_in),
    _counter(
        "edgeproxy_failovers",
        "Failed dials that were repeated on another backend.",
        lambda now: now.failovers,
    ),
    Metric(
        "edgeproxy_refused",
        Kind.COUNTER,
        "Clients refused.",
        ("reason",),
        _sorted(lambda now: now.refused),
    ),
    Metric(
        "edgeproxy_closed",
        Kind.COUNTER,
        "Sessions that ended.",
        ("reason",),
        _sorted(lambda now: now.closed),
    ),
    Metric(
        "edgeproxy_dial_failures",
        Kind.COUNTER,
        "Dials that failed.",
        ("reason",),
        _sorted(lambda now: now.dial_failures),
    ),
    Metric(
        "edgeproxy_app_connections",
        Kind.COUNTER,
        "Clients given a backend, by app.",
        ("app",),
        _connections_by_app,
    ),
    Metric(
        "edgeproxy_app_refused",
        Kind.COUNTER,
        "Clients refused, by app.",
        ("app", "reason"),
        _refused_by_app,
    ),
    Metric(
        "edgeproxy_decisions",
        Kind.COUNTER,
        "Backends given to clients, by how they were chosen and both regions.",
        DECISION_LABELS,
        lambda now: sorted(now.decisions.items()),
    ),
    Metric(
        "edgeproxy_session_seconds",
        Kind.HISTOGRAM,
        "How long sessions were open.",
        (),
        lambda now: (((), _distribution(now.session_secs)),),
    ),
    Metric(
        "edgeproxy_first_byte_seconds",
        Kind.HISTOGRAM,
        "Time until a client got the first byte of its backend.",
        (),
        lambda now: (((), _distribution(now.first_byte_secs)),),
    ),
    _gauge("edgeproxy_bindings", "Clients bound to a backend.", lambda now: now.bindings),
    _gauge(
        "edgeproxy_rate_limit_clients",
        "Clients the rate limit remembers.",
        lambda now: now.rate_limited_clients,
    ),
    _counter(
        "edgeproxy_pool_hits",
        "Clients given an idle connection from the pool.",
        lambda now: now.pool_hits,
    ),
    _counter(
        "edgeproxy_pool_misses",
        "Clients for which the pool had no idle connection.",
        lambda now: now.pool_misses,
    ),
    _counter(
        "edgeproxy_pool_dropped", "Idle connections closed unused.", lambda now: now.pool_dropped
    ),
    _gauge("edgeproxy_table_version", "Routing tables published.", lambda now: now.table_version),
    _gauge(
        "edgeproxy_table_age_seconds", "Age of the routing table.", lambda now: now.table_age_secs
    ),
    _counter(
        "edgeproxy_rows_skipped", "Rows that could not be used.", lambda now: now.rows_skipped
    ),
    _counter(
        "edgeproxy_reload_errors",
        "Failed reads of the routing database.",
        lambda now: now.reload_errors,
    ),
    _gauge(
        "edgeproxy_database_up", "Whether the database can be read.", lambda now: now.database_up
    ),
    _gauge("edgeproxy_leases", "Backends that are registered.", lambda now: now.leases),
    _counter("edgeproxy_leases_expired", "Leases that expired.", lambda now: now.leases_expired),
    _counter(
        "edgeproxy_leases_held_back",
        "Times the expiry of leases was suspended.",
        lambda now: now.leases_held_back,
    ),
    _counter(
        "edgeproxy_access_log_dropped",
        "Lines that could not be written to the access log.",
        lambda now: now.access_lines_dropped,
    ),
    Metric(
        "edgeproxy_certificate_errors",
        Kind.COUNTER,
        "Certificate changes that left the files unusable.",
        (),
        _certificate_errors,
    ),
    Metric(
        "edgeproxy_certificate_expires_timestamp_seconds",
        Kind.GAUGE,
        "When the first certificate in use expires.",
        (),
        _certificate_expiry,
    ),
    _gauge(
        "edgeproxy_event_loop_lag_seconds",
        "How late the control plane's last timer was.",
        lambda now: now.loop_lag_secs,
    ),
    _gauge("edgeproxy_open_descriptors", "Descriptors in use.", lambda now: now.descriptors),
    _gauge("edgeproxy_uptime_seconds", "Time since the start.", lambda now: now.uptime_secs),
    Metric(
        "edgeproxy_build",
        Kind.INFO,
        "Version, engine and region of this process.",
        ("version", "engine", "region"),
        _build,
    ),
)


def _rtt(now: BackendSnapshot) -> Iterable[Sample]:
    counters = now.counters
    buckets = list(_buckets(RTT_BUCKETS_SECS, counters.rtt))
    return (((), Distribution(buckets, counters.rtt_secs)),)


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> Iterator[tuple[str, float]]:
    """Yield the upper bound of each bucket and the number of values up to it."""
    total = 0
    counts = counts.copy()
    for bound, count in zip(bounds, counts, strict=False):
        total += count
        yield f"{bound:g}", total
    yield "+Inf", total + counts[-1]


def _circuit(now: BackendSnapshot) -> Iterator[Sample]:
    for state in Circuit:
        yield (state,), now.circuit is state


def _up(now: BackendSnapshot) -> Iterable[Sample]:
    return () if now.up is None else (((), now.up),)


def _limits(now: BackendSnapshot) -> Iterable[Sample]:
    return (("soft",), now.backend.soft_limit), (("hard",), now.backend.hard_limit)


BACKEND_METRICS: tuple[Metric[BackendSnapshot], ...] = (
    _counter(
        "edgeproxy_backend_connections",
        "Connections that the backend has accepted.",
        lambda now: now.counters.connections,
    ),
    _gauge("edgeproxy_backend_connections_active", "Slots in use.", lambda now: now.active),
    _counter(
        "edgeproxy_backend_errors",
        "Failed dials, and early closes where the circuit breaker counts them.",
        lambda now: now.counters.errors,
    ),
    Metric(
        "edgeproxy_backend_rtt_seconds",
        Kind.HISTOGRAM,
        "Time until the backend answered a dial.",
        (),
        _rtt,
    ),
    _counter(
        "edgeproxy_backend_bytes_sent",
        "Bytes sent to clients of a backend.",
        lambda now: now.all_bytes_out,
    ),
    _counter(
        "edgeproxy_backend_bytes_received",
        "Bytes received from clients of a backend.",
        lambda now: now.all_bytes_in,
    ),
    Metric(
        "edgeproxy_backend_circuit",
        Kind.GAUGE,
        "1 for the present state of the backend's circuit breaker, 0 for the others.",
        ("state",),
        _circuit,
    ),
    Metric(
        "edgeproxy_backend_up",
        Kind.GAUGE,
        "Result of the backend's health checks; absent without health checks.",
        (),
        _up,
    ),
    _gauge(
        "edgeproxy_backend_draining",
        "Whether the backend is being drained.",
        lambda now: now.draining,
    ),
    _gauge(
        "edgeproxy_backend_pool_connections",
        "Idle connections in the pool.",
        lambda now: now.warm,
    ),
    Metric(
        "edgeproxy_backend_limit",
        Kind.GAUGE,
        "Soft and hard connection limits of the backend; 0 means no limit.",
        ("kind",),
        _limits,
    ),
)
