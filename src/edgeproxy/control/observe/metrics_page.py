"""Renders the counts of this process as Prometheus reads them.

Everything is read from counters that others keep anyway; nothing is paid for at connection rate.
Names and types of the first eight are documented by the product and never change. "Sent" and
"received" are from this POP's point of view towards its clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from edgeproxy.control.admin.pages import HttpPages, Request, Response
from edgeproxy.control.observe.reading import BackendReading, StatusSnapshot
from edgeproxy.core.backends.counters import RTT_BUCKETS_SECS, BackendCounters
from edgeproxy.core.backends.live_state import Circuit

ALL_APPS_TEXT = "*"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector:
    def __init__(self, read: Callable[[], StatusSnapshot]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        reading = self._read()
        yield from _of_process(reading)
        yield from of_backends(reading.backends)


class Exposition:
    """The page of metrics."""

    def __init__(self, read: Callable[[], StatusSnapshot]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(read))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the page. Takes a while; not to be called where that matters."""
        return generate_latest(self._registry)


class Scrapes:
    """Renders for all who ask, once at a time, in a thread of its own.

    With thousands of backends a page takes seconds; many who ask must not cost many pages, nor hold
    up what else runs in threads. Whoever asks while a page is being made shares the next one with
    all who do: none is older than the question. For one event loop.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def page(self) -> bytes:
        """Return a page that was begun after this was called."""
        if self._next is None:
            self._next = asyncio.create_task(self._make())
        return await asyncio.shield(self._next)  # whoever leaves takes it from nobody else

    async def _make(self) -> bytes:
        async with self._one_at_a_time:
            self._next = None  # who asks from now on asks too late for this one
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._render)


def metrics_page(read: Callable[[], StatusSnapshot], path: str) -> HttpPages:
    """Return the page of metrics."""
    scrapes = Scrapes(Exposition(read).render)

    async def metrics(_asked: Request) -> Response:
        return Response(await scrapes.page(), CONTENT_TYPE)

    return HttpPages({path: metrics})


def _counter(name: str, text: str, count: float) -> Metric:
    return CounterMetricFamily(name, text, value=count)


def _gauge(name: str, text: str, reading: float) -> Metric:
    return GaugeMetricFamily(name, text, value=reading)


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def _of_process(reading: StatusSnapshot) -> Iterator[Metric]:
    yield _counter("edgeproxy_connections", "Clients given a backend.", reading.connections)
    yield _gauge("edgeproxy_connections_active", "Clients being served.", reading.active)
    yield _counter("edgeproxy_bytes_sent", "Bytes sent to clients.", reading.bytes_out)
    yield _counter("edgeproxy_bytes_received", "Bytes received of clients.", reading.bytes_in)
    yield _counter("edgeproxy_failovers", "Dials given to another backend.", reading.failovers)
    yield _by("edgeproxy_refused", "Clients turned away.", "reason", reading.refused)
    yield _by("edgeproxy_closed", "Sessions that ended.", "reason", reading.closed)
    yield _by("edgeproxy_dial_failures", "Dials that failed.", "reason", reading.dial_failures)
    by_app = CounterMetricFamily(
        "edgeproxy_app_connections", "Clients given a backend, by app.", labels=["app"]
    )
    for app, count in sorted(reading.connections_by_app.items()):
        by_app.add_metric([app or ALL_APPS_TEXT], count)
    refused = CounterMetricFamily(
        "edgeproxy_app_refused", "Clients turned away, by app.", labels=["app", "reason"]
    )
    for app, counts in sorted(reading.refused_by_app.items()):
        for reason, count in sorted(counts.items()):
            refused.add_metric([app or ALL_APPS_TEXT, reason], count)
    yield from (by_app, refused)
    yield _gauge("edgeproxy_bindings", "Clients bound to a backend.", reading.bindings)
    yield _gauge(
        "edgeproxy_rate_limit_clients",
        "Clients the rate limit remembers.",
        reading.rate_limited_clients,
    )
    yield _counter(
        "edgeproxy_pool_hits", "Clients given a connection that waited.", reading.pool_hits
    )
    yield _counter("edgeproxy_pool_misses", "Clients for whom none waited.", reading.pool_misses)
    yield _counter(
        "edgeproxy_pool_dropped", "Connections that waited for nobody.", reading.pool_dropped
    )
    yield _gauge("edgeproxy_table_version", "Routing tables published.", reading.table_version)
    yield _gauge("edgeproxy_table_age_seconds", "Age of the routing table.", reading.table_age_secs)
    yield _counter("edgeproxy_rows_skipped", "Rows that could not be used.", reading.rows_skipped)
    yield _counter(
        "edgeproxy_reload_errors", "Failed reads of the routing database.", reading.reload_errors
    )
    yield _gauge("edgeproxy_database_up", "Whether the database can be read.", reading.database_up)
    yield _gauge("edgeproxy_leases", "Backends that are registered.", reading.leases)
    yield _counter("edgeproxy_leases_expired", "Leases that expired.", reading.leases_expired)
    yield _counter(
        "edgeproxy_leases_held_back",
        "Times that expiry began to be held back.",
        reading.leases_held_back,
    )
    yield _counter(
        "edgeproxy_access_log_dropped",
        "Lines the access log could not take.",
        reading.access_lines_dropped,
    )
    if reading.certificates is not None:
        errors, expires_at = reading.certificates
        yield _counter("edgeproxy_certificate_errors", "Changes to certificates of no use.", errors)
        yield _gauge(
            "edgeproxy_certificate_expires_timestamp_seconds",
            "When the first certificate in use expires.",
            expires_at,
        )
    yield _gauge(
        "edgeproxy_event_loop_lag_seconds",
        "How late the control plane's last timer was.",
        reading.loop_lag_secs,
    )
    yield _gauge("edgeproxy_open_descriptors", "Descriptors in use.", reading.descriptors)
    yield _gauge("edgeproxy_uptime_seconds", "Time since the start.", reading.uptime_secs)
    yield InfoMetricFamily(
        "edgeproxy_build",
        "What is running.",
        value={"version": reading.version, "engine": reading.engine, "region": reading.region},
    )


LABELS = ("backend", "region")


def of_backends(backends: tuple[BackendReading, ...]) -> Iterator[Metric]:
    """Yield what is known of backends."""
    connections = CounterMetricFamily(
        "edgeproxy_backend_connections", "Clients a backend has answered.", labels=LABELS
    )
    active = GaugeMetricFamily(
        "edgeproxy_backend_connections_active", "Slots in use.", labels=LABELS
    )
    errors = CounterMetricFamily(
        "edgeproxy_backend_errors", "Dials that failed, mute ends if counted.", labels=LABELS
    )
    rtt = HistogramMetricFamily(
        "edgeproxy_backend_rtt_seconds", "How long dials took to be answered.", labels=LABELS
    )
    sent = CounterMetricFamily(
        "edgeproxy_backend_bytes_sent", "Bytes sent to clients of a backend.", labels=LABELS
    )
    received = CounterMetricFamily(
        "edgeproxy_backend_bytes_received", "Bytes received of its clients.", labels=LABELS
    )
    circuit = GaugeMetricFamily(
        "edgeproxy_backend_circuit",
        "The state of its breaker: 1 for the one it is in.",
        labels=(*LABELS, "state"),
    )
    up = GaugeMetricFamily(
        "edgeproxy_backend_up", "What its probes say; none if it is not probed.", labels=LABELS
    )
    draining = GaugeMetricFamily(
        "edgeproxy_backend_draining", "Whether it is being drained.", labels=LABELS
    )
    warm = GaugeMetricFamily(
        "edgeproxy_backend_pool_connections",
        "Unused connections that wait for clients.",
        labels=LABELS,
    )
    limit = GaugeMetricFamily(
        "edgeproxy_backend_limit", "Its limits; 0 is none.", labels=(*LABELS, "kind")
    )
    for each in backends:
        names = [each.id, each.region]
        counters = each.counters
        connections.add_metric(names, counters.connections)
        active.add_metric(names, each.active)
        errors.add_metric(names, counters.errors)
        rtt.add_metric(names, list(_buckets(counters)), sum_value=counters.rtt_secs)
        sent.add_metric(names, counters.bytes_out + each.bytes_out)
        received.add_metric(names, counters.bytes_in + each.bytes_in)
        for state in Circuit:
            circuit.add_metric([*names, state], each.circuit is state)
        if each.up is not None:
            up.add_metric(names, each.up)
        draining.add_metric(names, each.draining)
        warm.add_metric(names, each.warm)
        limit.add_metric([*names, "soft"], each.soft_limit)
        limit.add_metric([*names, "hard"], each.hard_limit)
    yield from (
        connections,
        active,
        errors,
        rtt,
        sent,
        received,
        circuit,
        up,
        draining,
        warm,
        limit,
    )


def _buckets(counters: BackendCounters) -> Iterator[tuple[str, float]]:
    """Yield how many dials took at most so long."""
    total = 0
    counts = list(counters.rtt)
    for bound, count in zip(RTT_BUCKETS_SECS, counts, strict=False):
        total += count
        yield f"{bound:g}", total
    yield "+Inf", total + counts[-1]
