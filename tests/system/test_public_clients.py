"""Clients with public addresses are located by the bundled database, without any outside call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import namespaces
from tests.system.backends import Backend
from tests.system.clients import reached
from tests.system.namespaces import Host
from tests.system.pop import Pop
from tests.system.proxy import SERVE

pytestmark = pytest.mark.system

BRAZIL, GERMANY, JAPAN = "200.160.2.3", "193.99.144.80", "202.12.27.33"
PRIVATE = "10.1.2.3"


@pytest.fixture
def island() -> Iterator[Host]:
    """Return a host that has these addresses and no way to anywhere else."""
    namespaces.need_namespaces()
    with Host("island") as island:
        for address in (BRAZIL, GERMANY, JAPAN, PRIVATE):
            island.ip("address", "add", f"{address}/32", "dev", "lo")
        yield island


def test_public_clients_reach_their_region_and_private_ones_that_of_the_pop_at_once(
    island: Host, pop: Pop
) -> None:
    for region in ("sa", "eu", "ap", "us"):
        backend = pop.keep(island.run(lambda name=f"{region}-1": Backend(name)))  # type: ignore[misc]
        island.run(backend.start)
        pop.register(backend, region)
    proxy = pop.serve_with(
        island.command(SERVE), EDGEPROXY_LISTEN_ADDR="0.0.0.0:0", EDGEPROXY_REGION="us"
    )
    port = proxy.address[1]

    for source, expected in (
        (BRAZIL, "sa-1"),
        (GERMANY, "eu-1"),
        (JAPAN, "ap-1"),
        (PRIVATE, "us-1"),
        ("127.0.0.1", "us-1"),
    ):
        assert island.run(lambda: reached((source, port), source)) == expected  # noqa: B023
