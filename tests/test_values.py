"""Texts become values, or the message says what is allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy import values as value
from edgeproxy.values import BadValueError, ListenAddress

PARSERS = [
    value.boolean,
    value.number("seconds", least=0),
    value.whole_number(least=1, most=9),
    value.one_of("a", "b"),
    value.region,
    value.text,
    value.listen_address,
    value.networks,
    value.http_path,
    value.page_path,
    value.host_header,
    value.on_remove,
    value.protocols,
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8080", ListenAddress("0.0.0.0", 8080)),
        ("127.0.0.1:0", ListenAddress("127.0.0.1", 0)),
        ("localhost:80", ListenAddress("127.0.0.1", 80)),
        ("[::]:443", ListenAddress("::", 443)),
        ("[::1]:65535", ListenAddress("::1", 65535)),
    ],
)
def test_listen_addresses(text: str, expected: ListenAddress) -> None:
    assert value.listen_address(text) == expected
    assert value.listen_address(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:-1", "1.2.3.4:٣", "::1:80", "[::1]"]
)
def test_bad_listen_addresses(text: str) -> None:
    with pytest.raises(BadValueError, match="ADDRESS:PORT"):
        value.listen_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h2,http/1.1", ("h2", "http/1.1")),
        (" h2 , acme-tls/1,", ("h2", "acme-tls/1")),
        ("x" * 255, ("x" * 255,)),
        ("", ()),
    ],
)
def test_protocols(text: str, expected: tuple[str, ...]) -> None:
    assert value.protocols(text) == expected


@pytest.mark.parametrize(
    "text",
    ["h2,h2", "h 2", "h\n2", "h2é", "x" * 256, ",".join(f"{n:0255}" for n in range(256))],
)
def test_bad_protocols(text: str) -> None:
    with pytest.raises(BadValueError, match="such as h2,http"):
        value.protocols(text)


@given(st.text(max_size=30), st.sampled_from(PARSERS))
def test_any_text_is_a_value_or_a_bad_value(text: str, parse: object) -> None:
    assert callable(parse)
    complaint = "allowed"
    try:
        parse(text)
    except BadValueError as error:
        complaint = str(error)
    assert "allowed" in complaint


@pytest.mark.parametrize("text", [",", " ", " , ", ",,"])
def test_networks_that_are_none_are_not_everybody(text: str) -> None:
    with pytest.raises(BadValueError, match="the list is empty; allowed are IPv4 and IPv6"):
        value.networks(text)


def test_commas_too_many_between_networks_do_no_harm() -> None:
    assert value.networks("10.0.0.0/8, ,192.0.2.1,") == value.networks("10.0.0.0/8,192.0.2.1")


@pytest.mark.parametrize("text", ["/m?x=1", "/m#x", "//m", "m", "/m m"])
def test_a_page_is_not_put_where_nobody_finds_it(text: str) -> None:
    with pytest.raises(BadValueError, match="allowed is a path"):
        value.page_path(text)


def test_paths() -> None:
    assert value.page_path("/") == "/"
    assert value.page_path("/a/metrics;v=1") == "/a/metrics;v=1"
    assert value.http_path("/health?deep=1") == "/health?deep=1"


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (value.region, ("sa", "a-1", "x" * 16), ("", "SA", "-a", "x" * 17, "sa\n")),
        (value.host_header, ("app.example:80", "[::1]"), ("", "a b", "x" * 256)),
        (value.on_remove, ("keep", "close", "drain:30", "drain:0.5"), ("drain", "drain:", "keeps")),
    ],
)
def test_a_text_matches_as_a_whole_or_not_at_all(
    parse: Callable[[str], str], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    assert tuple(map(parse, good)) == good
    for text in bad:
        with pytest.raises(BadValueError, match="allowed"):
            parse(text)


def test_a_secret_is_shown_nowhere() -> None:
    given = value.secret("s3cret")
    assert given.reveal() == "s3cret"
    assert given
    assert "s3cret" not in f"{given} {given!r} {[given]}"
    assert given == value.secret("s3cret") != value.Secret("")
    assert not value.Secret("")
    for wrong in ("two words", "ü", "x" * 4097):
        with pytest.raises(value.BadValueError, match="printable ASCII"):
            value.secret(wrong)
