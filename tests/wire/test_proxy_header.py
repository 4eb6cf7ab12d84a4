"""Addresses are given in the one form in which they are compared."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from edgeproxy.core.geo.address import normalise
from edgeproxy.errors import WireError
from edgeproxy.wire.proxy_header import Endpoint, endpoint, of_one_family


@pytest.mark.parametrize("ip", ["192.0.2.1", "::ffff:192.0.2.1", "2001:DB8:0::1", "::", "::1"])
def test_an_endpoint_is_in_normal_form(ip: str) -> None:
    assert endpoint(ip_address(ip), 80) == Endpoint(normalise(ip), 80)


def test_ipv4_is_mapped_only_beside_ipv6() -> None:
    four, six = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1%eth0", 2)
    assert of_one_family(four, four) == (IPv4Address("192.0.2.1"),) * 2
    assert of_one_family(six, six) == (IPv6Address("2001:db8::1"),) * 2
    mapped = IPv6Address("::ffff:192.0.2.1")
    assert of_one_family(four, six) == (mapped, IPv6Address("2001:db8::1"))
    assert of_one_family(six, four) == (IPv6Address("2001:db8::1"), mapped)


@pytest.mark.parametrize("end", [Endpoint("localhost", 1), Endpoint("", 1), Endpoint("1.2.3", 1)])
def test_what_is_no_address_is_not_sent(end: Endpoint) -> None:
    with pytest.raises(WireError, match="an address to be sent is neither IPv4 nor IPv6"):
        of_one_family(end, Endpoint("192.0.2.1", 1))


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_not_sent(port: int) -> None:
    with pytest.raises(WireError, match="not within 0 to 65535"):
        of_one_family(Endpoint("192.0.2.1", 1), Endpoint("192.0.2.1", port))
