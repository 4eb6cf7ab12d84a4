"""Every spelling of an address has one normal form."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo.address import normalise


@pytest.mark.parametrize(
    ("ip", "normal"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7%3", "192.0.2.7"),
        ("::1", "::1"),
    ],
)
def test_an_address_has_one_normal_form(ip: str, normal: str) -> None:
    assert normalise(ip) == normal


@given(st.ip_addresses(v=4))
def test_ipv4_is_the_same_written_plainly_or_mapped(address: IPv4Address) -> None:
    assert normalise(str(address)) == normalise(f"::ffff:{address}") == str(address)


@given(st.ip_addresses(v=6))
def test_every_spelling_of_an_ipv6_address_has_the_same_normal_form(address: IPv6Address) -> None:
    normal = normalise(str(address))
    assert normalise(address.exploded.upper()) == normalise(f"{address}%eth0") == normal
    assert normalise(normal) == normal
    assert ip_address(normal) == (address.ipv4_mapped or address)


@pytest.mark.parametrize("text", [":", "::g", "1:2", "[::1]", "192.0.2.7:80", "%eth0:"])
def test_text_with_a_colon_that_is_no_address_has_no_normal_form(text: str) -> None:
    with pytest.raises(AddressValueError):
        normalise(text)
