"""The demo's clients need addresses of their own; where they cannot have them it says so."""

from __future__ import annotations

import pytest

from edgeproxy.cli.demo import clients
from edgeproxy.cli.demo.clients import CLIENTS, Client, check_addresses
from edgeproxy.cli.demo.environment import NODES, POP_REGION
from edgeproxy.core.geo.regions import region_of
from edgeproxy.errors import EdgeProxyError


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_clients_belong_to_their_own_region_or_else_to_that_of_the_pop(client: Client) -> None:
    own = region_of(client.country)
    assert client.region == (own if own in NODES.values() else POP_REGION)


def test_every_client_can_have_its_address_here() -> None:
    check_addresses()


def test_an_address_that_cannot_be_had_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "CLIENTS", (*CLIENTS, Client("192.0.2.1", "BR", "Brazil", "sa")))
    with pytest.raises(EdgeProxyError, match=r"192\.0\.2\.1 cannot be used here.*lo0 alias"):
        check_addresses()
