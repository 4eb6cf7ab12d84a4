"""A server name is a host name, none, or hostile; nothing else ever comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.errors import WireError
from edgeproxy.host_name import host_name
from edgeproxy.wire.server_name import decode


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"www.Example.COM", "www.example.com"),
        (b"www.example.com.", "www.example.com"),
        (b"localhost", "localhost"),
        (b"192.0.2.1", None),
        (b"192.0.2.1.", None),
        (b"2001:DB8::1", None),
        (b"[2001:db8::1]", None),
    ],
)
def test_names_are_normal_and_addresses_are_none(sent: bytes, name: str | None) -> None:
    assert decode(sent) == name


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b".",
        b"a\0.example.com",
        b"a.example.com\r\nX: 1",
        b"a b.example.com",
        b"*.example.com",
        b"m\xc3\xbcnchen.de",
        b"\xe2\x84\xaa.de",
        b"a.example.com..",
        b"a" * 256,
        b"1" * 70_000,
        b"999.0.2.1",
        b"fe80::1%../../etc",
        b":" * 16_000,
        b"[2001:db8::1",
        b"2001:db8::1]",
        b"[a.b]",
        b"<script>",
        b"\x1b[2J.example.com",
    ],
)
def test_hostile_text_is_refused(sent: bytes) -> None:
    with pytest.raises(WireError, match=r"^the server name is not a host name$"):
        decode(sent)


@given(st.binary(max_size=300))
def test_what_comes_out_is_a_host_name(sent: bytes) -> None:
    try:
        name = decode(sent)
    except WireError:
        return
    assert name is None or host_name(name) == name
