"""Renders the table of metrics as the page that Prometheus reads, at most one page at a time.

All values are counters that the proxy keeps anyway: a connection costs nothing more because of
this page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family

from edgeproxy.control.admin.pages import HttpPages, Request, Response
from edgeproxy.control.observe.metric_table import (
    BACKEND_LABELS,
    BACKEND_METRICS,
    PROCESS_METRICS,
    Distribution,
    Metric,
    Sample,
)
from edgeproxy.control.observe.status_snapshot import StatusSnapshot
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

T = TypeVar("T")


class _Collector:
    def __init__(self, read: Callable[[], StatusSnapshot]) -> None:
        self._read = read

    def collect(self) -> Iterable[Family]:
        now = self._read()
        for metric in PROCESS_METRICS:
            samples = metric.read(now)
            if samples is not None:
                yield _family(metric, metric.labels, samples)
        yield from backend_families(BACKEND_METRICS, now.backends)


class Exposition:
    """The page of metrics."""

    def __init__(self, read: Callable[[], StatusSnapshot]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(read))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the page. Slow with many backends: call it in a thread of its own."""
        return generate_latest(self._registry)


class Scrapes:
    """Renders pages in a thread of its own, one at a time, shared by concurrent scrapers.

    With thousands of backends a page takes seconds. Many scrapers must not cause many pages, nor
    block the threads that other work needs. Scrapers that ask while a page is being made share the
    next one, so no page is older than its request. For one event loop.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None

    async def page(self) -> bytes:
        """Return a page whose rendering began after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._make())
        # A scraper that disconnects must not cancel the page the others wait for.
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        async with self._one_at_a_time:
            self._next = None  # later requests get the next page: this one begins now
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._render)


def metrics_page(read: Callable[[], StatusSnapshot], path: str) -> HttpPages:
    """Return the page of metrics."""
    scrapes = Scrapes(Exposition(read).render)

    async def metrics(_request: Request) -> Response:
        return Response(await scrapes.page(), CONTENT_TYPE)

    return HttpPages({path: metrics})


def backend_families(
    metrics: Iterable[Metric[BackendSnapshot]], backends: Iterable[BackendSnapshot]
) -> Iterator[Family]:
    """Yield these metrics of all backends."""
    labelled = [((snapshot.backend.id, snapshot.backend.region), snapshot) for snapshot in backends]
    for metric in metrics:
        samples = (
            (names + labels, value)
            for names, snapshot in labelled
            for labels, value in metric.read(snapshot) or ()
        )
        yield _family(metric, BACKEND_LABELS + metric.labels, samples)


def _family(metric: Metric[T], labels: tuple[str, ...], samples: Iterable[Sample]) -> Family:
    """Return a metric and its samples in the classes of the Prometheus library."""
    family = Family(metric.name, metric.help, metric.kind)
    for values, value in samples:
        named = dict(zip(labels, values, strict=True))
        if isinstance(value, Distribution):
            for bound, count in value.buckets:
                family.add_sample(f"{metric.name}_bucket", named | {"le": bound}, count)
            family.add_sample(f"{metric.name}_count", named, value.buckets[-1][1])
            family.add_sample(f"{metric.name}_sum", named, value.total)
        else:
            family.add_sample(metric.name_on_page, named, value)
    return family
