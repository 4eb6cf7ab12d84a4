"""Metrics of backends for programs that embed the library, under the names the proxy uses."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from edgeproxy.control.observe.metric_table import BACKEND_METRICS
from edgeproxy.control.observe.metrics_page import backend_families
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

_METRICS = [
    metric
    for metric in BACKEND_METRICS
    if metric.name
    in (
        "edgeproxy_backend_connections",
        "edgeproxy_backend_connections_active",
        "edgeproxy_backend_errors",
        "edgeproxy_backend_rtt_seconds",
        "edgeproxy_backend_bytes_sent",
        "edgeproxy_backend_bytes_received",
    )
]
"""The metrics that a caller's records can fill."""


class PrometheusMetrics:
    """Counts connections, errors and bytes by backend. Safe to use from several threads.

    Args:
        region: The label `region` of all backends.
    """

    def __init__(self, region: str = "") -> None:
        self._region = region
        self._lock = threading.Lock()
        self._counters: dict[str, BackendCounters] = defaultdict(BackendCounters)
        self._active: dict[str, int] = defaultdict(int)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def record_connection(self, backend: str, rtt_secs: float = 0.0) -> None:
        """A backend answered a dial after this time; 0 if nothing waited for it."""
        with self._lock:
            self._counters[backend].answered(rtt_secs)
            self._active[backend] += 1

    def record_closed(self, backend: str) -> None:
        """A connection to a backend has ended."""
        with self._lock:
            self._active[backend] = max(self._active[backend] - 1, 0)

    def record_error(self, backend: str) -> None:
        """A dial to a backend has failed."""
        with self._lock:
            self._counters[backend].errors += 1

    def record_bytes_sent(self, backend: str, count: int) -> None:
        """Bytes of a backend were sent to a client."""
        with self._lock:
            self._counters[backend].bytes_out += count

    def record_bytes_received(self, backend: str, count: int) -> None:
        """Bytes for a backend were received from a client."""
        with self._lock:
            self._counters[backend].bytes_in += count

    def export_prometheus(self) -> str:
        """Return the page of metrics as text."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; a registry of `prometheus_client` calls this."""
        with self._lock:
            snapshots = tuple(
                BackendSnapshot(
                    Backend(backend_id, "", self._region, "", 0),
                    counters,
                    self._active[backend_id],
                )
                for backend_id, counters in sorted(self._counters.items())
            )
        yield from backend_families(_METRICS, snapshots)
