"""The line of text is read to the letter of its specification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.errors import WireError
from edgeproxy.wire.proxy_header import Endpoint, Header
from edgeproxy.wire.proxy_v1 import MAX_BYTES, UNKNOWN, decode, encode
from tests.wire.cuts import answer, refused_after, whole
from tests.wire.ends import ENDPOINT

WORST = (
    b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
    b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
)
"""The longest line of the specification."""


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        ("TCP4 192.168.0.1 192.168.0.11 56324 443", "192.168.0.1 56324", "192.168.0.11 443"),
        ("TCP4 0.0.0.0 255.255.255.255 0 65535", "0.0.0.0 0", "255.255.255.255 65535"),
        ("TCP6 ::1 2001:DB8::A 1 2", "::1 1", "2001:db8::a 2"),
        ("TCP6 ::ffff:c000:201 ::ffff:192.0.2.2 1 2", "192.0.2.1 1", "192.0.2.2 2"),
        (f"TCP6 {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535",)
        + (f"{'ffff:' * 7}ffff 65535",) * 2,
    ],
)
def test_lines_are_read(line: str, source: str, destination: str) -> None:
    sent = f"PROXY {line}\r\n".encode()
    header = whole(decode, sent)
    assert header.size == len(sent)
    ends = (header.source, header.destination)
    assert [f"{end.ip} {end.port}" for end in ends if end] == [source, destination]


@pytest.mark.parametrize(
    "line", [UNKNOWN, b"PROXY UNKNOWN \r\n", b"PROXY UNKNOWN a  b~\r\n", WORST]
)
def test_what_follows_unknown_is_not_read(line: bytes) -> None:
    assert whole(decode, line) == Header(1, len(line))


def test_a_line_has_at_most_107_bytes() -> None:
    assert len(WORST) == MAX_BYTES
    longer = WORST.replace(b" 65535\r", b" 655355\r")
    assert refused_after(decode, longer) == MAX_BYTES - 1
    assert refused_after(decode, b"PROXY TCP4 " + b"1" * 200) == MAX_BYTES - 1
    assert answer(decode, longer) == "the PROXY line has not ended after 107 bytes"


@pytest.mark.parametrize(
    ("sent", "after"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"POST / HTTP/1.1\r\n", 2),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 7),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 1),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 8),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 10),
        (b"PROXY UNKNOWNS\r\n", 14),
        (b"PROXY UNKNOWN\n", 14),
        (b"PROXY UNKNOWN \n", 15),
        (b"PROXY UNKNOWN a\0\r\n", 16),
        (b"PROXY TCP4 \xff", 12),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", 32),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx", 32),
        (b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", 11),
    ],
)
def test_what_is_no_header_is_refused_at_the_first_byte_that_shows_it(
    sent: bytes, after: int
) -> None:
    assert refused_after(decode, sent) == after


@pytest.mark.parametrize(
    "fields",
    [
        "TCP4 1.2.3.4 1.2.3.4 1",
        "TCP4 1.2.3.4 1.2.3.4 1 2 3",
        "TCP4 1.2.3.4 1.2.3.4 1 2 ",
        "TCP4 1.2.3.4  1.2.3.4 1 2",
        "TCP4  1.2.3.4 1.2.3.4 1 2",
        "TCP4 1.2.3.4 1.2.3.4 01 2",
        "TCP4 1.2.3.4 1.2.3.4 1 00",
        "TCP4 1.2.3.4 1.2.3.4 1 65536",
        "TCP4 1.2.3.4 1.2.3.4 1 +2",
        "TCP4 1.2.3.4 1.2.3.4 -1 2",
        "TCP4 1.2.3.4 1.2.3.4 1 100000",
        "TCP4 1.2.3.4 1.2.3.04 1 2",
        "TCP4 1.2.3.4 1.2.3.256 1 2",
        "TCP4 1.2.3.4 1.2.3 1 2",
        "TCP4 1.2.3.4 0x1.2.3.4 1 2",
        "TCP4 ::1 ::1 1 2",
        "TCP4 1.2.3.4 ::1 1 2",
        "TCP6 1.2.3.4 1.2.3.4 1 2",
        "TCP6 ::1 1.2.3.4 1 2",
        "TCP6 ::1 ::1%lo 1 2",
        "TCP6 ::1 [::1] 1 2",
        "TCP6 ::1 ::1/64 1 2",
        "TCP6 ::1 1::2::3 1 2",
        "TCP6 ::1 1:2:3:4:5:6:7 1 2",
        "TCP6 ::1 00000::1 1 2",
        "TCP6 ::1 ::g 1 2",
        "TCP6 ",
    ],
)
def test_a_line_that_is_not_exact_is_refused_when_it_ends(fields: str) -> None:
    sent = f"PROXY {fields}\r\n".encode()
    assert refused_after(decode, sent) == len(sent)


@given(ENDPOINT, ENDPOINT)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(source: Endpoint, destination: Endpoint) -> None:
    sent = encode(source, destination)
    assert whole(decode, sent) == Header(1, len(sent), source, destination)


def test_lines_are_written_as_specified() -> None:
    four, six = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1%eth0", 2)
    assert encode(four, four) == b"PROXY TCP4 192.0.2.1 192.0.2.1 1 1\r\n"
    assert encode(six, six) == b"PROXY TCP6 2001:db8::1 2001:db8::1 2 2\r\n"
    assert encode(four, six) == b"PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n"
    assert encode(None, six) == encode(four, None) == b"PROXY UNKNOWN\r\n"


@given(st.binary(max_size=120))
def test_garbage_raises_nothing_else(garbage: bytes) -> None:
    for sent in (garbage, b"PROXY TCP4 " + garbage, b"PROXY TCP6 " + garbage + b"\r\n"):
        try:
            decode(sent)
        except WireError:
            pass


@given(st.text("0123456789abcdefF:. ", max_size=90))
def test_almost_right_lines_raise_nothing_else(fields: str) -> None:
    for family in ("TCP4", "TCP6", "UNKNOWN"):
        assert answer(decode, f"PROXY {family} {fields}\r\n".encode()) is not None
