"""IPv6 on either side, or on both."""

from __future__ import annotations

import socket

import pytest

from tests.system.backends import Backend
from tests.system.clients import reached
from tests.system.pop import BRAZIL, Pop

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _needs_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")


def add_ipv6_backend(pop: Pop, backend_id: str, region: str = "sa") -> None:
    backend = pop.keep(Backend(backend_id, "::1"))
    backend.start()
    pop.register(backend, region)


def test_an_ipv6_client_reaches_an_ipv6_backend(pop: Pop) -> None:
    add_ipv6_backend(pop, "six")
    proxy = pop.serve(EDGEPROXY_LISTEN_ADDR="[::1]:0")

    assert proxy.seen("ready")[0]["listen"] == f"[::1]:{proxy.address[1]}"
    assert reached(proxy.address) == "six"


def test_an_ipv4_client_reaches_an_ipv6_backend(pop: Pop) -> None:
    add_ipv6_backend(pop, "six")
    pop.serve()

    assert pop.reached() == "six"


def test_an_ipv6_client_reaches_an_ipv4_backend_of_its_country(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("eu-1", "eu")
    pop.overrides.write_text("::1, DE\n")
    proxy = pop.serve(EDGEPROXY_LISTEN_ADDR="[::1]:0")

    assert reached(proxy.address) == "eu-1"


def test_a_listener_on_all_addresses_knows_ipv4_clients_as_such(pop: Pop) -> None:
    pop.backend("sa-1", "sa")
    pop.backend("eu-1", "eu")
    pop.overrides.write_text("127.10.0.0/16, BR\n::1, DE\n")
    proxy = pop.serve(EDGEPROXY_LISTEN_ADDR="[::]:0", EDGEPROXY_REGION="us")
    port = proxy.address[1]

    assert reached(("127.0.0.1", port), BRAZIL) == "sa-1"
    assert reached(("::1", port)) == "eu-1"
