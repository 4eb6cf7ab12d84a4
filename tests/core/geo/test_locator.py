"""Where a client comes from: which source is asked first, and what is remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo.address import normalise
from edgeproxy.core.geo.locator import Locator
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.geo.overrides import Overrides, parse


class Database:
    """Knows every address in one country and remembers what it was asked."""

    def __init__(self, country: str | None = "MX") -> None:
        self.country = country
        self.asked: list[str] = []

    def __call__(self, ip: str) -> tuple[str | None, str]:
        self.asked.append(ip)
        return (self.country, "203.0.113.0/24") if self.country else (None, "")


# --- the order of the sources


def test_the_database_gives_the_country_and_the_country_its_region() -> None:
    locate = Locator(Database(), Overrides())
    assert locate("203.0.113.9") == Origin("203.0.113.9", "MX", "us", "database", "203.0.113.0/24")


def test_an_override_of_the_network_wins_over_the_database() -> None:
    database = Database()
    locate = Locator(database, parse("203.0.113.0/25,AR\nMX,MX,sa"))
    assert locate("203.0.113.9") == Origin("203.0.113.9", "AR", "sa", "override", "203.0.113.0/25")
    assert database.asked == []


def test_an_override_of_the_country_wins_over_the_table_of_regions() -> None:
    locate = Locator(Database(), parse("198.51.100.0/24,AR\nMX,GT,sa"))
    assert locate("203.0.113.9") == Origin("203.0.113.9", "GT", "sa", "override", "MX")


def test_an_override_can_make_a_client_unknown() -> None:
    locate = Locator(Database(), parse("203.0.113.0/24,ZZ"))
    assert locate("203.0.113.9") == Origin("203.0.113.9", None, None, "override", "203.0.113.0/24")


def test_a_country_the_table_does_not_know_has_no_region() -> None:
    assert Locator(Database("EU"), Overrides())("203.0.113.9").region is None


def test_a_client_the_database_does_not_know_is_unknown() -> None:
    assert Locator(Database(None), parse("MX,MX,sa"))("203.0.113.9") == Origin("203.0.113.9")


def test_a_mapped_client_is_found_by_its_ipv4_address() -> None:
    database = Database()
    locate = Locator(database, parse("192.0.2.0/24,BR"))
    assert locate("::ffff:192.0.2.7") == Origin("192.0.2.7", "BR", "sa", "override", "192.0.2.0/24")
    assert locate("::ffff:203.0.113.9").ip == "203.0.113.9"
    assert database.asked == ["203.0.113.9"]


PRIVATE = [
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1"),
    *("169.254.1.1", "100.64.0.1", "100.127.255.255", "::1", "fd00::1", "fe80::1%eth0"),
    "::ffff:10.0.0.1",
]


@pytest.mark.parametrize("ip", PRIVATE)
def test_a_private_client_is_unknown_whatever_the_database_says(ip: str) -> None:
    database = Database()
    assert Locator(database, Overrides())(ip) == Origin(normalise(ip))
    assert database.asked == []


@pytest.mark.parametrize("ip", PRIVATE)
def test_an_override_places_a_private_client(ip: str) -> None:
    origin = Locator(Database(), parse("0.0.0.0/0,BR\n::/0,BR"))(ip)
    assert (origin.country, origin.region, origin.source) == ("BR", "sa", "override")


@pytest.mark.parametrize(
    "ip", ["9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.0", "100.128.0.0", "fe00::1", "::2"]
)
def test_the_neighbours_of_private_networks_are_looked_up(ip: str) -> None:
    assert Locator(Database(), Overrides())(ip).country == "MX"


@pytest.mark.parametrize("text", ["", "nonsense", "1.2.3", "1.2.3.256", "::g", "1.2.3.4:80"])
@pytest.mark.parametrize("overrides", ["", "0.0.0.0/0,BR\n::/0,BR"])
def test_text_that_is_no_address_is_unknown(text: str, overrides: str) -> None:
    assert Locator(Database(), parse(overrides))(text) == Origin(text)


# --- what is remembered


def test_a_client_is_looked_up_once() -> None:
    database = Database()
    locate = Locator(database, Overrides())
    assert locate("203.0.113.9") is locate("203.0.113.9")
    assert database.asked == ["203.0.113.9"]


def test_the_oldest_client_is_forgotten_first() -> None:
    database = Database()
    locate = Locator(database, Overrides(), cache_size=2)
    for ip in ("203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.3", "203.0.113.2"):
        locate(ip)
    assert database.asked == ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    locate("203.0.113.1")
    assert database.asked[-1] == "203.0.113.1"


@given(st.lists(st.integers(0, 9)), st.integers(0, 4))
def test_a_bounded_memory_never_changes_an_answer(octets: list[int], cache_size: int) -> None:
    def lookup(ip: str) -> tuple[str | None, str]:
        return ("BR" if int(ip[-1]) % 2 else "DE"), f"{ip}/32"

    locate = Locator(lookup, Overrides(), cache_size=cache_size)
    for octet in octets:
        ip = f"203.0.113.{octet}"
        assert (locate(ip).ip, locate(ip).country) == (ip, lookup(ip)[0])
