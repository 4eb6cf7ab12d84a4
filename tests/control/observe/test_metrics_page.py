"""The page of metrics: each backend in every metric, whatever its name; made once for many."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.control.admin.acceptor import MAX_OF_ONE, CallerLimits
from edgeproxy.control.observe import renderer
from edgeproxy.control.observe.metric_table import BACKEND_METRICS
from edgeproxy.control.observe.metrics_page import Exposition, backend_families, metrics_page
from edgeproxy.control.observe.renderer import Renderer
from edgeproxy.control.observe.status_snapshot import StatusSnapshot
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot
from tests.control.observe.snapshots import NOTHING
from tests.control.serving import get, rest_of, served
from tests.waiting import wait_until

DEADLINE_SECS = 20.0


def snapshot(number: int, backend_id: str) -> BackendSnapshot:
    """Return a backend that has done something."""
    counters = BackendCounters()
    for turn in range(number):
        counters.answered(0.001 * turn)
    row = Backend(backend_id, "app", "sa", "192.0.2.1", 80)
    return BackendSnapshot(row, counters, number, up=[None, True, False][number % 3], bytes_in=7)


def test_every_backend_has_every_metric_as_the_library_writes_it() -> None:
    names = ["plain", 'quo"te', "back\\slash", "line\nbreak", "é", *map(str, range(200))]
    backends = tuple(snapshot(number % 5, name) for number, name in enumerate(names))
    page = b"".join(Exposition(lambda: replace(NOTHING, backends=backends)).render()).decode()
    told = {family.name: family for family in text_string_to_metric_families(page)}
    for family in backend_families(BACKEND_METRICS, backends):
        assert told[family.name].type == family.type
        assert told[family.name].documentation == family.documentation
        for samples in (told[family.name].samples, family.samples):
            samples.sort(key=lambda sample: (sample.name, sorted(sample.labels.items())))
        assert [each[:3] for each in told[family.name].samples] == [
            each[:3] for each in family.samples
        ]


def test_a_page_comes_in_pieces_with_rests_in_between() -> None:
    backends = tuple(snapshot(1, str(number)) for number in range(1000))
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    pieces = Exposition(lambda: replace(NOTHING, backends=backends)).render(rest)
    assert max(map(len, pieces)) < 200_000
    assert rests >= len(backends) // 4


def test_many_scrapers_cost_few_pages() -> None:
    reads = 0
    let_go = threading.Event()

    def read() -> StatusSnapshot:
        nonlocal reads
        reads += 1
        assert let_go.wait(DEADLINE_SECS)
        return NOTHING

    with (
        served(metrics_page(read, "/metrics", Renderer(), CallerLimits())) as address,
        ExitStack() as held,
    ):
        scrapers = []
        for _ in range(MAX_OF_ONE - 2):
            scrapers.append(held.enter_context(socket.create_connection(address, DEADLINE_SECS)))
            scrapers[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert get(address, "/other") == b"not found; the paths are: /metrics\n"
        wait_until(lambda: reads, "a page that is being made")
        let_go.set()
        for each in scrapers:
            assert b"edgeproxy_connections_total 0.0" in rest_of(each)
    assert reads <= 3


def test_scrapers_that_do_not_read_let_the_others_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is costly is kept, and none that is read fails."""
    monkeypatch.setattr(renderer, "COSTLY_SECS", 0.0)
    backends = tuple(snapshot(1, str(number)) for number in range(5000))
    state = replace(NOTHING, backends=backends)
    with (
        served(metrics_page(lambda: state, "/metrics", Renderer(), CallerLimits())) as address,
        ExitStack() as held,
    ):
        for _ in range(80):
            deaf = held.enter_context(socket.create_connection(address, DEADLINE_SECS))
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(3):
            assert get(address, "/metrics").count(b"edgeproxy_backend_errors_total{") == 5000
