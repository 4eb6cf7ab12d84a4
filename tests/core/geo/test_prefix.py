"""Of several networks that hold an address the longest wins."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo.prefix import Prefixes, network


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_it_finds_what_looking_through_all_of_them_finds(
    networks: list[tuple[int, int]], number: int
) -> None:
    known = {ip_network((base, length), strict=False): length for base, length in networks}
    address = ip_address(number)
    holding = [length for each, length in known.items() if address in each]
    assert Prefixes(known).find(str(address)) == max(holding, default=None)


def test_ipv6_and_ipv4_do_not_mix() -> None:
    prefixes = Prefixes({ip_network("::/0"): "six", ip_network("0.0.0.0/1"): "four"})
    assert [prefixes.find(ip) for ip in ("::1", "1.2.3.4", "192.0.2.1")] == ["six", "four", None]
    assert len(prefixes) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("nonsense", "None"),
        ("fe80::1%eth0", "None"),
        ("10.0.0.0/255.0.0.0", "None"),
    ],
)
def test_text_becomes_a_network(text: str, found: str) -> None:
    assert str(network(text)) == found


def test_host_bits_are_no_slip_to_pass_over() -> None:
    with pytest.raises(ValueError, match=r"probably 10\.0\.0\.0/8 was meant"):
        network("10.0.0.1/8")
