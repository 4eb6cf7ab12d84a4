"""All addresses of one prefix have one key, and no others."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.admission.client_key import ClientPrefixes, block_of, key_of, site_of

SPARSE = st.builds(
    lambda bits, mask: bits & mask,
    st.integers(0, (1 << 128) - 1),
    st.sampled_from([-1, (1 << 64) - 1, 0xFFFF << 48, 0xFFFF << 112 | 0xFFFF, 0]),
)
"""Addresses with groups of zeros, which text leaves out."""


def test_a_client_is_an_ipv4_address_or_an_ipv6_64() -> None:
    assert key_of("2001:db8:1:2::1") == key_of("2001:db8:1:2:ffff::9")
    assert key_of("2001:db8:1:2::1") != key_of("2001:db8:1:3::1")
    assert key_of("192.0.2.1") != key_of("192.0.2.2")
    assert key_of("192.0.2.1") == "192.0.2.1"


@given(one=SPARSE, other=SPARSE, bits=st.integers(32, 128), shares=st.integers(0, 128))
def test_ipv6_addresses_of_one_prefix_have_one_key(
    one: int, other: int, bits: int, shares: int
) -> None:
    low = (1 << (128 - shares)) - 1
    other = one & ~low | other & low
    prefixes = ClientPrefixes(ipv6=bits)
    keys = [key_of(str(IPv6Address(each)), prefixes) for each in (one, other)]
    assert (keys[0] == keys[1]) == (one >> (128 - bits) == other >> (128 - bits))


@given(one=st.integers(0, 2**32 - 1), other=st.integers(0, 2**32 - 1), bits=st.integers(16, 32))
def test_ipv4_addresses_of_one_prefix_have_one_key(one: int, other: int, bits: int) -> None:
    prefixes = ClientPrefixes(ipv4=bits)
    for each in (other, one ^ (1 << (32 - bits)) if bits < 32 else other, one ^ 1):
        keys = [key_of(str(IPv4Address(address)), prefixes) for address in (one, each)]
        assert (keys[0] == keys[1]) == (one >> (32 - bits) == each >> (32 - bits))


@pytest.mark.parametrize(
    ("client", "prefix", "site"),
    [
        ("2001:db8:1:2::1", 64, "2001:db8:1"),
        ("2001:db8:1::1", 56, "2001:db8:1"),
        ("2001:db8::1", 128, "2001:db8:0"),
        ("2001:db8:1:2::1", 48, ""),
        ("2001:db8:1:2::1", 40, ""),
        ("192.0.2.1", 64, ""),
    ],
)
def test_a_site_is_an_ipv6_48_that_is_larger_than_a_client(
    client: str, prefix: int, site: str
) -> None:
    assert site_of(key_of(client, ClientPrefixes(ipv6=prefix))) == site


@pytest.mark.parametrize(
    ("client", "prefixes", "block"),
    [
        ("2001:db8:1:2::1", ClientPrefixes(), "2001:db8"),
        ("2001::1", ClientPrefixes(), "2001:0"),
        ("2001:db8::1", ClientPrefixes(ipv6=32), "2001:db8"),
        ("192.0.2.1", ClientPrefixes(), "192.0"),
        ("192.0.2.1", ClientPrefixes(ipv4=16), "192.0"),
    ],
)
def test_a_block_is_an_ipv6_32_or_an_ipv4_16(
    client: str, prefixes: ClientPrefixes, block: str
) -> None:
    assert block_of(key_of(client, prefixes)) == block
