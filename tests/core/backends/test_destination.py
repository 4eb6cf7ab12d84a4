"""Where an address leads, in whatever spelling: here, to the cloud's own services, or elsewhere."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.destination import NOTHING, Own, doubt, meanings, registration_fault
from edgeproxy.core.backends.rows import RowError, check_address

STRANGER, LOOPBACK = "10.9.9.9", "127.0.0.1"
METADATA = "169.254.169.254"


def spellings(ip: str) -> list[str]:
    """Return an IPv4 address in every form that a translator or a tunnel turns into it."""
    four = int(IPv4Address(ip))
    high, low = four >> 16, four & 0xFFFF
    numbers = (
        four,
        0xFFFF << 32 | four,
        0xFFFF << 48 | four,
        0x64FF9B << 96 | four,
        0x64FF9B0001 << 80 | four,
        0x64FF9B0001 << 80 | high << 64 | low << 40,
        0x64FF9B0001 << 80 | four >> 24 << 64 | (four & 0xFFFFFF) << 32,
        0x64FF9B0001 << 80 | four << 24,
        0x2002 << 112 | four << 80 | 1,
        0x20010000 << 96 | 0x05060708 << 64 | four ^ 0xFFFFFFFF,
        0x20010000 << 96 | four << 64 | 0xFAFAFAFA,
        0x20010DB8 << 96 | 0x5EFE << 32 | four,
        0xFD00 << 112 | 0x02005EFE << 32 | four,
    )
    return [ip, *(str(IPv6Address(each)) for each in numbers)]


def normal(ip: str) -> str | None:
    """Return an address as a row or a registration has it, None if neither may."""
    try:
        return check_address(ip)
    except RowError:
        return None


@given(st.integers(1 << 24, (1 << 32) - 1).map(lambda number: str(IPv4Address(number))))
def test_every_spelling_means_the_same_address(ip: str) -> None:
    for spelling in spellings(ip):
        assert IPv4Address(ip) in meanings(spelling), spelling


@given(st.ip_addresses(v=6).map(str))
def test_any_address_can_be_judged(ip: str) -> None:
    assert meanings(ip)[0] == IPv6Address(ip)
    doubt(ip)
    NOTHING.what_is_at(ip, 80)


@pytest.mark.parametrize("spelling", spellings(METADATA))
def test_the_metadata_service_cannot_be_registered_in_any_spelling(spelling: str) -> None:
    ip = normal(spelling)
    assert ip is None or registration_fault(ip, 80, LOOPBACK, NOTHING) is not None


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.170.2",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fe80::1",
        "febf::1",
        "224.0.0.1",
        "ff02::1",
        "::ffff:224.0.0.1",
        "64:ff9b::224.0.0.1",
        "0.0.0.0",
        "0.0.0.1",
        "::",
        "::ffff:0.0.0.0",
        "64:ff9b::0.0.0.0",
        "255.255.255.255",
        "2002:f000:1::",
    ],
)
def test_what_is_no_backend_cannot_be_registered(ip: str) -> None:
    found = normal(ip)
    assert found is None or registration_fault(found, 80, LOOPBACK, NOTHING) is not None


@pytest.mark.parametrize(
    "ip", ["10.50.1.1", "8.8.8.8", "fd00::2", "2001:db8::1", "2a00:1450::1", "64:ff9b::10.0.0.1"]
)
def test_what_may_be_a_backend_can_be_registered(ip: str) -> None:
    ip = check_address(ip)
    assert doubt(ip) is None
    assert registration_fault(ip, 80, STRANGER, NOTHING) is None


@pytest.mark.parametrize("spelling", spellings("127.0.0.1") + spellings("127.9.9.9") + ["::1"])
def test_only_loopback_registers_loopback(spelling: str) -> None:
    ip = check_address(spelling)
    fault = registration_fault(ip, 80, STRANGER, NOTHING)
    assert fault is not None
    assert "loopback" in fault
    assert registration_fault(ip, 80, "::1", NOTHING) is None


def test_networks_narrow_what_may_be_registered() -> None:
    networks = (ip_network("10.50.0.0/16"), ip_network("fd00::/8"))

    def is_allowed(ip: str, caller: str = LOOPBACK) -> bool:
        return registration_fault(check_address(ip), 80, caller, NOTHING, networks) is None

    assert is_allowed("10.50.1.1")
    assert is_allowed("::ffff:10.50.1.1")
    assert is_allowed("fd00::2")
    assert not is_allowed("10.51.1.1")
    assert not is_allowed("127.0.0.1")
    assert not is_allowed("64:ff9b::10.50.1.1")
    assert not is_allowed("fd00:ec2::254")


OWN = Own(
    {
        ("0.0.0.0", 8080): "a listener",
        ("::", 443): "another",
        ("10.0.0.5", 8081): "the API",
        ("127.0.0.1", 9090): "the page",
    },
    frozenset({"10.0.0.5", "10.0.0.6", "fd00::5"}),
)


@pytest.mark.parametrize(
    ("ip", "port", "what"),
    [
        ("10.0.0.5", 8080, "a listener"),
        ("10.0.0.6", 8080, "a listener"),
        ("127.0.0.1", 8080, "a listener"),
        ("127.50.0.9", 8080, "a listener"),
        ("::7f00:1", 8080, "a listener"),
        ("fd00::5", 8080, None),
        ("::1", 8080, None),
        ("10.0.0.7", 8080, None),
        ("10.0.0.5", 8082, None),
        ("10.0.0.5", 443, "another"),
        ("fd00::5", 443, "another"),
        ("::1", 443, "another"),
        ("fd00::6", 443, None),
        ("10.0.0.5", 8081, "the API"),
        ("10.0.0.6", 8081, None),
        ("127.0.0.1", 8081, None),
        ("127.0.0.1", 9090, "the page"),
        ("127.0.0.2", 9090, None),
    ],
)
def test_what_a_backend_would_reach_of_this_proxy(ip: str, port: int, what: str | None) -> None:
    assert OWN.what_is_at(ip, port) == what
    fault = registration_fault(ip, port, LOOPBACK, OWN)
    assert (fault is not None) == (what is not None)
    assert what is None or what in str(fault)


@pytest.mark.parametrize("spelling", spellings("10.0.0.5"))
@pytest.mark.parametrize("port", [8080, 443, 8081])
def test_this_proxy_is_recognised_in_every_spelling(spelling: str, port: int) -> None:
    assert OWN.what_is_at(check_address(spelling), port) is not None
