"""The override file: what its lines mean, which one wins, and what is said about bad ones."""

from __future__ import annotations

import timeit
import tracemalloc
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.geo import overrides
from edgeproxy.core.geo.overrides import MAX_FAULTS, Override, Overrides, OverridesError, parse


def found(text: str, ip: str) -> tuple[str | None, str | None]:
    override = parse(text).find(ip)
    assert override is not None
    return override.country, override.region


def faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(OverridesError) as caught:
        parse(text)
    return [(fault.line, fault.message) for fault in caught.value.faults]


# --- what a line means


def test_blank_lines_and_comments_say_nothing() -> None:
    assert len(parse("\n  \n# 10.0.0.0/8,BR\n\t# more\r\n")) == 0


def test_a_line_keeps_its_prefix_country_region_and_number() -> None:
    text = "# ours\n\n 10.50.0.0/16 , br , sa-2   # the lab\r\n"
    assert parse(text).find("10.50.1.2") == Override("10.50.0.0/16", "BR", "sa-2", 3)


def test_without_a_region_it_is_that_of_the_country() -> None:
    assert found("10.0.0.0/8,JP", "10.1.2.3") == ("JP", "ap")
    assert found("10.0.0.0/8,JP,", "10.1.2.3") == ("JP", "ap")


@pytest.mark.parametrize("country", ["", " ", "ZZ", "zz"])
def test_a_country_can_be_unknown_on_purpose(country: str) -> None:
    assert found(f"10.0.0.0/8,{country}", "10.1.2.3") == (None, None)
    assert found(f"10.0.0.0/8,{country},sa", "10.1.2.3") == (None, "sa")


@pytest.mark.parametrize("region", ["a", "9", "eu-2", "x" * 16])
def test_a_region_may_be_any_short_code(region: str) -> None:
    assert found(f"10.0.0.0/8,BR,{region}", "10.1.2.3") == ("BR", region)


@pytest.mark.parametrize(
    ("line", "match"),
    [("192.0.2.7,BR", "192.0.2.7/32"), ("2001:DB8:0::7,BR", "2001:db8::7/128")],
)
def test_a_bare_address_is_itself_alone(line: str, match: str) -> None:
    overrides = parse(line)
    ip = match.partition("/")[0]
    assert overrides.find(ip) == Override(match, "BR", "sa", 1)
    assert overrides.find(ip[:-1] + "8") is None


@pytest.mark.parametrize(
    ("prefix", "match"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_an_ipv4_mapped_prefix_is_the_ipv4_prefix_in_it(prefix: str, match: str) -> None:
    overrides = parse(f"{prefix},BR")
    assert overrides.find(match.partition("/")[0]) == Override(match, "BR", "sa", 1)


def test_a_prefix_of_one_family_says_nothing_about_the_other() -> None:
    overrides = parse("0.0.0.0/0,BR\n::/0,DE")
    four, six = overrides.find("203.0.113.1"), overrides.find("2001:db8::1")
    assert four is not None
    assert six is not None
    assert (four.country, six.country) == ("BR", "DE")


def test_a_country_line_is_for_clients_of_that_country() -> None:
    overrides = parse("mx,MX,sa\nGB,,eu-west\nPT,BR,sa")
    assert overrides.for_country("MX") == Override("MX", "MX", "sa", 1)
    assert overrides.for_country("GB") == Override("GB", None, "eu-west", 2)
    assert overrides.for_country("PT") == Override("PT", "BR", "sa", 3)
    assert overrides.for_country("BR") is None
    assert len(overrides) == 3


@pytest.mark.parametrize("text", ["10.0.0.0/8,MX\nMX,MX,sa", "MX,MX,sa\n10.0.0.0/8,MX"])
def test_the_region_a_file_gives_a_country_holds_for_its_prefixes_too(text: str) -> None:
    assert found(text, "10.1.2.3") == ("MX", "sa")


def test_no_lines_find_nothing() -> None:
    assert Overrides().find("10.0.0.1") is None
    assert Overrides().find("::1") is None
    assert Overrides().for_country("BR") is None


# --- which line wins


NETWORKS_V4 = st.builds(
    # Few distinct bits at the top, so that prefixes contain one another.
    lambda top, length: IPv4Network((top << 28, length), strict=False),
    st.integers(0, 15),
    st.integers(0, 6),
) | st.builds(
    lambda low, length: IPv4Network((0x0A000000 | low, length), strict=False),
    st.integers(0, 15),
    st.integers(26, 32),
)
NETWORKS_V6 = st.builds(
    lambda top, low, length: IPv6Network((top << 124 | low, length), strict=False),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, 4, 64, 126, 127, 128]),
)
ADDRESSES = st.one_of(
    st.integers(0, 15).map(lambda top: IPv4Address(top << 28)),
    st.integers(0, 15).map(lambda low: IPv4Address(0x0A000000 | low)),
    st.builds(lambda top, low: IPv6Address(top << 124 | low), st.integers(0, 3), st.integers(0, 3)),
)


@given(st.lists(NETWORKS_V4 | NETWORKS_V6, unique=True, max_size=12), st.lists(ADDRESSES))
def test_the_longest_prefix_that_holds_an_address_wins(
    networks: list[IPv4Network | IPv6Network], addresses: list[IPv4Address | IPv6Address]
) -> None:
    overrides = parse("\n".join(f"{network},BR,r{network.prefixlen}" for network in networks))
    for address in addresses:
        holding = [network for network in networks if address in network]
        expected = max(holding, key=lambda network: network.prefixlen, default=None)
        override = overrides.find(str(address))
        assert (override and override.match) == (expected and str(expected))


def test_a_lookup_costs_the_same_with_many_lines_as_with_few() -> None:
    def cost(lines: int) -> float:
        text = "\n".join(f"20.{n >> 8}.{n & 255}.0/24,BR" for n in range(lines))
        overrides = parse(text)
        return min(timeit.repeat(lambda: overrides.find("20.0.0.1"), number=2000, repeat=5))

    assert cost(10_000) < 4 * cost(10)


# --- what is wrong with a file


def test_a_line_has_two_or_three_fields() -> None:
    for text in ["10.0.0.0/8", "10.0.0.0/8,BR,sa,x", "BR"]:
        [(line, message)] = faults(text)
        assert line == 1
        assert "expected cidr,country or cidr,country,region" in message


def test_host_bits_are_answered_with_the_network_that_was_probably_meant() -> None:
    assert faults("10.1.2.3/8,BR") == [
        (1, "10.1.2.3/8 has host bits set; probably 10.0.0.0/8 was meant")
    ]
    assert "probably 10.0.0.0/8 was" in faults("::ffff:10.1.2.3/104,BR")[0][1]
    assert "probably 2001:db8::/32 was" in faults("2001:db8::1/32,DE")[0][1]
    assert "probably ::/64 was" in faults("::ffff:10.1.2.3/64,BR")[0][1]


@pytest.mark.parametrize(
    "prefix",
    [
        *("10/8", "10.0.0/24", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "010.0.0.1", "1.2.3.256"),
        *("::/129", "2001:db8", "fe80::1%eth0", "BRA", "", "host.example", "10.0.0.0/8/8"),
        "10.0.0.0/255.0.0.0",
    ],
)
def test_what_is_no_prefix_is_named(prefix: str) -> None:
    [(line, message)] = faults(f"{prefix},BR")
    assert line == 1
    assert message.startswith(f"{prefix!r} is neither")
    assert "10.0.0.0/8" in message


@pytest.mark.parametrize("country", ["UK", "Brazil", "B", "ß", "1A", "EU"])
def test_what_is_no_country_is_named(country: str) -> None:
    [(line, message)] = faults(f"\n10.0.0.0/8,{country}")
    assert line == 2
    assert message.startswith(f"country {country!r} is not an ISO 3166-1 alpha-2 code")
    assert "ZZ" in message


@pytest.mark.parametrize("region", ["SA", "-a", "a_b", "x" * 17, "são"])
def test_what_is_no_region_is_named(region: str) -> None:
    [(_, message)] = faults(f"10.0.0.0/8,BR,{region}")
    assert message.startswith(f"region {region!r} is not 1 to 16 lower-case")


def test_a_country_line_needs_a_real_country_and_a_region() -> None:
    assert faults("MX,MX") == [(1, "a line for a country must name the region: MX,MX,eu")]
    assert faults("MX,MX,")[0][1].startswith("a line for a country must name the region")
    assert faults("ZZ,BR,sa") == [(1, "the first field may not be ZZ; write a country or a prefix")]
    assert faults("UK,GB,eu")[0][1].startswith("country 'UK' is not")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.0/8,BR\n\n10.0.0.0/8,BR", "10.0.0.0/8 is already on line 1; keep one of them"),
        ("10.0.0.0/8,BR\n\n::ffff:a00:0/104,DE", "10.0.0.0/8 is already on line 1"),
        ("192.0.2.1,BR\n\n192.0.2.1/32,BR", "192.0.2.1/32 is already on line 1"),
        ("MX,MX,sa\n\nmx,MX,us", "MX is already on line 1"),
    ],
)
def test_the_same_prefix_or_country_twice_names_both_lines(text: str, message: str) -> None:
    [(line, said)] = faults(text)
    assert line == 3
    assert said.startswith(message)


def test_all_faults_of_all_lines_are_told() -> None:
    told = faults("10.0.0.1/8,Brazil,SA\n10.0.0.0/8,BR\nnonsense\n")
    assert [line for line, _ in told] == [1, 1, 1, 3]


def test_a_message_shows_the_first_faults_and_counts_the_rest() -> None:
    with pytest.raises(OverridesError) as caught:
        parse("nonsense\n" * 15)
    assert len(caught.value.faults) == 15
    assert str(caught.value).startswith("line 1: expected cidr,country")
    assert str(caught.value).count("line ") == 10
    assert str(caught.value).endswith("; and 5 more")


def peak_bytes(text: str) -> int:
    """Return how much memory it takes at most to read a text."""
    tracemalloc.start()
    try:
        with suppress(OverridesError):
            parse(text)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", ["\n", "#\n", "x\n", "x,y,z,\n", "10.0.0.0/8,BR\n", ",", "\0"])
def test_a_large_file_of_another_kind_takes_little_memory(line: str) -> None:
    count = 400_000 // len(line)
    assert peak_bytes(line * count) < 1_000_000


def test_a_file_with_very_many_faults_is_read_no_further() -> None:
    with pytest.raises(OverridesError) as caught:
        parse("nonsense\n" * (2 * MAX_FAULTS))
    assert len(caught.value.faults) == MAX_FAULTS
    assert str(caught.value).endswith("; and so on")


def test_a_long_line_is_not_shown() -> None:
    assert faults("10.0.0.0/8," + "B" * 1000) == [(1, "expected up to 200 characters; found: 1011")]
    parse("10.0.0.0/8,BR #" + "B" * 1000)


def test_a_file_may_have_so_many_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overrides, "MAX_LINES", 2)
    assert len(parse("10.0.0.0/8,BR\n\nMX,MX,sa\n")) == 2
    assert faults("10.0.0.0/8,BR\n\nMX,MX,sa\n::/8,BR\n") == [
        (4, "a file may have up to 2 overrides")
    ]


@given(st.text(alphabet=st.sampled_from("10.:/,# \nBRZxf%\t-٣"), max_size=60) | st.text())
def test_any_text_is_either_understood_or_refused_with_line_numbers(text: str) -> None:
    try:
        parse(text)
    except OverridesError as error:
        lines = [fault.line for fault in error.faults]
        assert lines == sorted(lines)
        assert 1 <= lines[0] <= lines[-1] <= text.count("\n") + 1
