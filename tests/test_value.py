"""Texts become values, or the message says what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy import value
from edgeproxy.value import BadValueError, ListenAddress

PARSERS = [
    value.boolean,
    value.number("seconds", least=0),
    value.whole_number(least=1, most=9),
    value.one_of("a", "b"),
    value.region,
    value.text,
    value.listen_address,
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


@given(st.text(max_size=30), st.sampled_from(PARSERS))
def test_any_text_is_a_value_or_a_bad_value(text: str, parse: object) -> None:
    assert callable(parse)
    complaint = "allowed"
    try:
        parse(text)
    except BadValueError as error:
        complaint = str(error)
    assert "allowed" in complaint
