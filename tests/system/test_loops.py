"""Clients that go round in circles are found, and others are served meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeproxy.core.admission.loops import TURNED_AWAY
from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Endpoint
from tests.conformance.peers import Peer
from tests.ports import free_port
from tests.system import clients, namespaces
from tests.system.namespaces import Host
from tests.system.pop import Pop
from tests.system.proxy import SERVE
from tests.waiting import wait_until

pytestmark = pytest.mark.system

LIMIT = 400
"""Descriptors of each proxy."""
QUARTER = LIMIT // 4 // 2
"""So many sessions, with two descriptors each, have a quarter of them."""
IDLE = 36
"""A proxy without clients has fewer descriptors than this; a circle has more before it is found."""
HERE = Endpoint("192.0.2.9", 80)


@dataclass
class Node:
    """A row that leads to a proxy."""

    id: str
    host: str
    port: int


@dataclass
class Ring:
    """Two proxies that name each other as the only backend of the app `ring`.

    Each also has an app `fine` with a real backend.
    """

    pops: tuple[Pop, Pop]
    ring_ports: list[int]
    fine_ports: list[int]
    header: str

    def serve(self, engine: str) -> None:
        """Start both."""
        for number, pop in enumerate(self.pops):
            pop.backend("fine", app="fine", hard_limit=0)
            other = Node("other", "127.0.0.1", self.ring_ports[1 - number])
            pop.register(other, app="ring", hard_limit=0)
            variables = {}
            if self.header:
                variables = {
                    "EDGEPROXY_PROXY_PROTOCOL_IN": "127.0.0.0/8",
                    "EDGEPROXY_PROXY_PROTOCOL_OUT": f"ring={self.header}",
                }
            pop.serve_with(
                SERVE,
                LIMIT,
                EDGEPROXY_ENGINE=engine,
                EDGEPROXY_LISTENERS=f"127.0.0.1:{self.ring_ports[number]}=ring,"
                f"127.0.0.1:{self.fine_ports[number]}=fine",
                **variables,
            )

    def client(self, app: str, number: int = 0, source: str = "127.0.0.1") -> Peer:
        """Return a new client of the first proxy."""
        port = (self.ring_ports if app == "ring" else self.fine_ports)[0]
        client = self.pops[0].keep(clients.connect(("127.0.0.1", port), source))
        origin = Endpoint(f"192.0.2.{number % 250 + 1}", 2000 + number)
        if self.header == "v1":
            client.send(proxy_v1.encode(origin, HERE))
        elif self.header == "v2":
            client.send(proxy_v2.encode(origin, HERE))
        client.send(b"hello")
        return client

    def loops(self) -> int:
        """Return how many clients both have refused because they go round."""
        return sum(len(pop.proxy.seen("client_refused", reason="loop")) for pop in self.pops)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Pop, Pop]]:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with ExitStack() as stack:
        first = stack.enter_context(closing(Pop(one)))
        yield first, stack.enter_context(closing(Pop(two)))


@pytest.mark.parametrize("header", ["", "v1", "v2"])
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_two_proxies_at_each_other_leave_room_for_everybody(
    folders: tuple[Pop, Pop], engine: str, header: str, count: int
) -> None:
    free = [free_port() for _ in range(4)]
    ring = Ring(folders, free[:2], free[2:], header)
    ring.serve(engine)
    first, second = (pop.proxy for pop in ring.pops)
    lost = [ring.client("ring", number) for number in range(count)]
    wait_until(lambda: ring.loops() > 0, "somebody is refused")
    for number in range(10):
        fine = ring.client("fine", 100 + number)
        assert clients.greeting(fine) == "fine"
        fine.close()
    for client in lost:
        assert client.rest().data == b""
    wait_until(
        lambda: max(first.descriptors(), second.descriptors()) < IDLE + 2 * count,
        "all of it has come apart, although its first clients are still there",
    )
    for client in lost:
        client.close()
    most = QUARTER + 2 * count + 10
    for proxy in (first, second):
        stopped = proxy.stop()
        assert int(stopped["accepted"]) <= most


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_two_proxies_at_each_other_that_have_another_backend_use_it(
    folders: tuple[Pop, Pop], engine: str, count: int
) -> None:
    """It must not answer those who go round: each further client would go round as often."""
    free = [free_port() for _ in range(4)]
    ring = Ring(folders, free[:2], free[2:], "")
    for pop in folders:
        pop.backend("far", "us", app="ring", hard_limit=0)
    ring.serve(engine)
    proxies = [pop.proxy for pop in ring.pops]
    held = [ring.client("ring", source=f"127.0.2.{number + 1}") for number in range(count)]
    wait_until(lambda: ring.loops() > 0, "somebody is refused")
    wait_until(
        lambda: max(proxy.descriptors() for proxy in proxies) < IDLE + 6 * count,
        "all of it has come apart",
    )
    served = 0
    for number in range(40):  # they stay
        client = ring.client("ring", source=f"127.0.3.{number + 1}")
        served += clients.greeting(client) == "far"
        held.append(client)
    assert served >= 40 - 2 * TURNED_AWAY
    for proxy in proxies:
        assert proxy.descriptors() < IDLE + 6 * len(held)
    for client in held:
        client.close()


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_corrected_row_serves_at_once(folders: tuple[Pop, Pop], engine: str) -> None:
    free = [free_port() for _ in range(4)]
    ring = Ring(folders, free[:2], free[2:], "")
    ring.serve(engine)
    ring.client("ring")
    wait_until(lambda: ring.loops() > 0, "somebody is refused")
    right = ring.pops[0].backend("right", app="ring")
    ring.pops[0].proxy.edit("DELETE FROM backends WHERE id = 'other'")
    assert clients.greeting(ring.client("ring")) == right.id


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_row_that_the_host_itself_forwards_here(pop: Pop, engine: str) -> None:
    """A prefix that is routed to this host: none of its addresses is listed as an own one."""
    namespaces.need_namespaces()
    with Host("ring") as host:
        host.ip("route", "add", "local", "192.0.2.0/24", "dev", "lo")
        port = free_port()
        pop.register(Node("self", "192.0.2.7", port), app="ring", hard_limit=0)
        proxy = pop.serve_with(
            host.command(SERVE),
            EDGEPROXY_ENGINE=engine,
            EDGEPROXY_LISTENERS=f"0.0.0.0:{port}=ring",
        )
        assert not proxy.seen("row_skipped")
        client = pop.keep(host.run(lambda: clients.connect(("127.0.0.1", port))))
        client.send(b"hello")
        proxy.wait_for("client_refused", reason="loop")
        assert client.rest().data == b""
        client.close()
        stopped = proxy.stop()
        assert int(stopped["accepted"]) < 1000
