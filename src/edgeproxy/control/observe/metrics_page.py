"""Renders the table of metrics as the page that Prometheus reads.

All values are counters that the proxy keeps anyway: a connection costs nothing more because of
this page. The lines of backends, of which there may be a million, are written here; everything else
is written by the Prometheus library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric as Family

from edgeproxy.control.admin.acceptor import CallerLimits
from edgeproxy.control.admin.pages import HttpPages, Request, Response
from edgeproxy.control.observe.cluster_metrics import CLUSTER_METRICS
from edgeproxy.control.observe.metric_table import (
    BACKEND_LABELS,
    BACKEND_METRICS,
    PROCESS_METRICS,
    Distribution,
    Metric,
    Sample,
)
from edgeproxy.control.observe.renderer import BusyError, Renderer
from edgeproxy.control.observe.status_snapshot import StatusSnapshot
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BACKENDS_AT_ONCE = 64
"""How many are written metric by metric: their lines are one piece of the page."""

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

T = TypeVar("T")


class _Collector:
    """The metrics of the process."""

    def __init__(self) -> None:
        self.now: StatusSnapshot | None = None

    def collect(self) -> Iterable[Family]:
        if self.now is None:
            return
        for metric in (*PROCESS_METRICS, *CLUSTER_METRICS):
            samples = metric.read(self.now)
            if samples is not None:
                yield _family(metric, metric.labels, samples)


class Exposition:
    """The page of metrics."""

    def __init__(self, read: Callable[[], StatusSnapshot]) -> None:
        self._read = read
        self._process = _Collector()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self._process)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self, rest: Pause = no_pause) -> list[bytes]:
        """Return the page in pieces. Slow with many backends: call it in a thread of its own."""
        now = self._process.now = self._read()
        return [generate_latest(self._registry), *backend_lines(now.backends, rest)]


def metrics_page(
    read: Callable[[], StatusSnapshot], path: str, renderer: Renderer, limits: CallerLimits
) -> HttpPages:
    """Return the page of metrics, for callers that `limits` admits."""
    exposition = Exposition(read)

    async def metrics(_request: Request) -> Response:
        try:
            return Response(await renderer.answer(("metrics",), exposition.render), CONTENT_TYPE)
        except BusyError as error:
            return Response(f"{error}\n".encode(), status=503)

    return HttpPages({path: metrics}, limits=limits)


def backend_lines(backends: Iterable[BackendSnapshot], rest: Pause) -> Iterator[bytes]:
    """Yield the page of `BACKEND_METRICS`, in pieces: each backend is read once."""
    named = [(metric, metric.name_on_page) for metric in BACKEND_METRICS]
    pieces: list[list[bytes]] = [[_head(metric)] for metric in BACKEND_METRICS]
    snapshots = paced(backends, rest)
    while some := list(islice(snapshots, BACKENDS_AT_ONCE)):
        labelled = [(_labels(snapshot), snapshot) for snapshot in some]
        for (metric, name), written in zip(named, pieces, strict=True):
            rest()
            text = "".join(_lines(metric, name, labels, each) for labels, each in labelled)
            written.append(text.encode())
    for written in pieces:
        yield from written


def _head(metric: Metric[BackendSnapshot]) -> bytes:
    name = metric.name_on_page
    return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n".encode()


def _labels(snapshot: BackendSnapshot) -> str:
    backend = snapshot.backend
    return f'backend="{_escaped(backend.id)}",region="{_escaped(backend.region)}"'


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _lines(
    metric: Metric[BackendSnapshot], name: str, labels: str, snapshot: BackendSnapshot
) -> str:
    """Return the lines of one backend in one metric."""
    own = metric.labels
    lines = []
    for values, value in metric.read(snapshot) or ():
        named = labels
        for label, text in zip(own, values, strict=True):
            named = f'{named},{label}="{text}"'
        if isinstance(value, Distribution):
            lines += [
                f'{name}_bucket{{{named},le="{bound}"}} {float(count)}\n'
                for bound, count in value.buckets
            ]
            lines.append(f"{name}_count{{{named}}} {float(value.buckets[-1][1])}\n")
            lines.append(f"{name}_sum{{{named}}} {float(value.total)}\n")
        else:
            lines.append(f"{name}{{{named}}} {float(value)}\n")
    return "".join(lines)


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
