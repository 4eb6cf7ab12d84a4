"""The kernel tells the addresses of this host, also those that come and go."""

from __future__ import annotations

import socket

from edgeproxy.engine.host_addresses import host_addresses


def test_loopback_and_the_address_that_others_see_are_among_them() -> None:
    found = host_addresses()
    assert found is not None
    assert "127.0.0.1" in found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))  # sends nothing
        assert probe.getsockname()[0] in found


def test_each_can_be_bound_to() -> None:
    for address in host_addresses() or ():
        if address.startswith("fe80:"):  # only together with an interface
            continue
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as bound:
            bound.bind((address, 0))
