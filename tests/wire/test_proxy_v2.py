"""The block of bytes is believed only where every length fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.errors import WireError
from edgeproxy.wire.proxy_header import Endpoint, Header
from edgeproxy.wire.proxy_v2 import (
    LOCAL,
    MAX_BYTES,
    MAX_COMMON_NAME_BYTES,
    MAX_TLS_BYTES,
    SIGNATURE,
    decode,
    encode,
    tls_of,
)
from tests.wire.cuts import answer, refused_after, whole
from tests.wire.ends import ENDPOINT
from tests.wire.hellos import vector

ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL = 1, 2, 3, 4, 5, 0x20
ENDS = bytes((192, 0, 2, 1, 198, 51, 100, 1)) + b"\x00\x07\x01\xbb"
CLIENT, SERVER = Endpoint("192.0.2.1", 7), Endpoint("198.51.100.1", 443)


def block(content: bytes = b"", kind: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes((command, kind)) + vector(content, 2)


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + vector(value, 2)


FROM_HAPROXY = {
    "send-proxy-v2 proxy-v2-options unique-id,crc32c": (
        (
            "0d0a0d0a000d0a515549540a2111003a7f0000017f000001df7049720300043f7c5ee0050024356633356138"
            "63322d663631652d346563652d623434362d396535323763396561383534"
        ),
        Header(
            2,
            74,
            Endpoint("127.0.0.1", 57200),
            Endpoint("127.0.0.1", 18802),
            unique_id=b"5f35a8c2-f61e-4ece-b446-9e527c9ea854",
        ),
    ),
    "send-proxy-v2-ssl-cn proxy-v2-options authority,crc32c,cert-key,ssl-cipher": (
        (
            "0d0a0d0a000d0a515549540a2111005d7f0000017f000001e4b24973030004901a495a010002683202000f77"
            "77772e4578616d706c652e636f6d2000300100000000210007544c5376312e332500054543323536230016544c"
            "535f4145535f3235365f47434d5f534841333834"
        ),
        Header(
            2,
            109,
            Endpoint("127.0.0.1", 58546),
            Endpoint("127.0.0.1", 18803),
            server_name="www.example.com",
            alpn=b"h2",
            tls=bytes.fromhex("0100000000210007544c5376312e332500054543323536230016")
            + b"TLS_AES_256_GCM_SHA384",
        ),
    ),
    "send-proxy-v2 over IPv6": (
        (
            "0d0a0d0a000d0a515549540a2121002400000000000000000000000000000001000000000000000000000000"
            "00000001cdaa4974"
        ),
        Header(2, 52, Endpoint("::1", 52650), Endpoint("::1", 18804)),
    ),
    "send-proxy-v2 for a client of a Unix socket": (
        ("0d0a0d0a000d0a515549540a20000000"),
        Header(2, 16, is_local=True),
    ),
}


@pytest.mark.parametrize(("sent", "header"), FROM_HAPROXY.values(), ids=FROM_HAPROXY)
def test_what_haproxy_sends_is_read(sent: str, header: Header) -> None:
    assert whole(decode, bytes.fromhex(sent)) == header


@given(
    ENDPOINT,
    ENDPOINT,
    st.none() | st.sampled_from(["a", "www.example.com", "a" * 63 + ".b"]),
    st.none() | st.binary(min_size=1, max_size=300),
    st.none() | st.binary(min_size=1, max_size=128),
    st.booleans(),
)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(
    source: Endpoint,
    destination: Endpoint,
    server_name: str | None,
    alpn: bytes | None,
    unique_id: bytes | None,
    checksum: bool,
) -> None:
    sent = encode(
        source,
        destination,
        server_name=server_name,
        alpn=alpn,
        unique_id=unique_id,
        checksum=checksum,
    )
    header = Header(
        2,
        len(sent),
        source,
        destination,
        server_name=server_name,
        alpn=alpn,
        unique_id=unique_id,
    )
    assert whole(decode, sent) == header


def test_headers_are_written_as_specified() -> None:
    assert encode(CLIENT, SERVER) == block(ENDS)
    named = encode(CLIENT, SERVER, server_name="A.example.", alpn=b"h2", unique_id=b"\0id")
    tlvs = tlv(ALPN, b"h2") + tlv(AUTHORITY, b"a.example") + tlv(UNIQUE_ID, b"\0id")
    assert named == block(ENDS + tlvs)
    six = encode(CLIENT, Endpoint("::1", 2))
    assert six[13:42] == b"\x21\x00\x24" + bytes(10) + b"\xff\xff\xc0\x00\x02\x01" + bytes(10)
    assert encode(None, SERVER, server_name="a.b") == LOCAL == block(b"", 0, 0x20)


def test_what_is_too_long_or_no_name_is_not_sent() -> None:
    with pytest.raises(WireError, match="the unique id has more than 128 bytes"):
        encode(CLIENT, SERVER, unique_id=bytes(129))
    room = MAX_BYTES - len(encode(CLIENT, SERVER)) - 3
    assert len(encode(CLIENT, SERVER, alpn=bytes(room))) == MAX_BYTES
    for size in (room + 1, 70_000):
        with pytest.raises(WireError, match="the PROXY header is longer than 4096 bytes"):
            encode(CLIENT, SERVER, alpn=bytes(size))
    for name in ("", "a b", "ß", "192.0.2.1", "\ud800"):
        with pytest.raises(WireError, match="the server name to be sent is not a host name"):
            encode(CLIENT, SERVER, server_name=name)


LOCALS = {
    "empty": LOCAL,
    "with addresses": block(ENDS, 0x11, 0x20),
    "with a block that is too short": block(b"\1", 0x21, 0x20),
    "with TLVs": block(tlv(AUTHORITY, b"a.b"), 0x00, 0x20),
    "with TLVs that do not fit": block(b"\2\xff\xff", 0x00, 0x20),
    "of an unknown family": block(b"?", 0xFF, 0x20),
    "as long as allowed": block(bytes(MAX_BYTES - 16), 0x00, 0x20),
}


@pytest.mark.parametrize("sent", LOCALS.values(), ids=LOCALS)
def test_nothing_is_read_of_local_but_its_length(sent: bytes) -> None:
    assert whole(decode, sent) == Header(2, len(sent), is_local=True)


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("content", [b"", b"\2\xff\xff", ENDS, tlv(AUTHORITY, b"\0")])
def test_nothing_is_read_of_a_form_that_is_not_known(kind: int, content: bytes) -> None:
    sent = block(content, kind)
    assert whole(decode, sent) == Header(2, len(sent))


@pytest.mark.parametrize(("kind", "size"), [(0x12, 12), (0x22, 36), (0x31, 216), (0x32, 216)])
def test_datagrams_and_unix_sockets_have_tlvs_but_no_ends(kind: int, size: int) -> None:
    sent = block(b"\1" * size + tlv(UNIQUE_ID, b"id"), kind)
    assert whole(decode, sent) == Header(2, len(sent), unique_id=b"id")


@pytest.mark.parametrize(
    ("kind", "size"),
    [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)],
)
def test_a_block_too_short_for_its_family_is_refused_by_its_length(kind: int, size: int) -> None:
    for short in (0, 1, size - 1):
        sent = block(bytes(short), kind)
        assert refused_after(decode, sent) == 16
    whole(decode, block(bytes(size), kind))


@pytest.mark.parametrize(
    ("sent", "after", "reason"),
    [
        (b"\r\nGET / HTTP/1.1", 3, "not a PROXY header of version 2"),
        (SIGNATURE[:11] + b"\r" + bytes(4), 12, "not a PROXY header of version 2"),
        (block(ENDS, command=0x11), 13, "the PROXY header is not of version 2"),
        (block(ENDS, command=0x31), 13, "the PROXY header is not of version 2"),
        (block(ENDS, command=0x22), 13, "the PROXY header is not of version 2"),
        (block(ENDS, command=0x2F), 13, "the PROXY header is not of version 2"),
        (block(ENDS, kind=0x13), 14, "the PROXY header has an unknown address family"),
        (block(ENDS, kind=0x41), 14, "the PROXY header has an unknown address family"),
        (block(bytes(MAX_BYTES - 15)), 16, "the PROXY header is longer than 4096 bytes"),
        (block(bytes(0x1000)), 15, "the PROXY header is longer than 4096 bytes"),
        (block(bytes(MAX_BYTES), 0, 0x20), 15, "the PROXY header is longer than 4096 bytes"),
    ],
)
def test_what_is_no_header_is_refused_at_the_first_byte_that_shows_it(
    sent: bytes, after: int, reason: str
) -> None:
    assert refused_after(decode, sent) == after
    assert str(answer(decode, sent)).startswith(reason)


BEYOND = "a TLV of the PROXY header points beyond its end"
MALFORMED = {
    "one byte left": (b"\4", BEYOND),
    "two bytes left": (b"\4\0", BEYOND),
    "a TLV past the end": (b"\4\0\1", BEYOND),
    "a TLV far past the end": (b"\xea\xff\xff?", BEYOND),
    "bytes after the last TLV": (tlv(NOOP, b"x") + b"\0", BEYOND),
    "checksum of three bytes": (tlv(CRC32C, bytes(3)), "the checksum of the PROXY header does not"),
    "checksum of five bytes": (tlv(CRC32C, bytes(5)), "the checksum of the PROXY header does not"),
    "wrong checksum": (tlv(CRC32C, bytes(4)), "the checksum of the PROXY header is wrong"),
}


@pytest.mark.parametrize(("tlvs", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_tlvs_fit_exactly_and_say_one_thing(tlvs: bytes, reason: str) -> None:
    sent = block(ENDS + tlvs)
    assert refused_after(decode, sent) == len(sent)
    assert str(answer(decode, sent)).startswith(reason)


FINE = {
    "padding": tlv(NOOP, b"") + tlv(NOOP, b"\xff" * 9),
    "long padding": tlv(NOOP, bytes(0x0203)) + tlv(NOOP, bytes(0x0100)),
    "unknown": tlv(0xEA, b"vpce-1") * 2 + tlv(0xFF, b""),
    "empty values": tlv(ALPN, b"") + tlv(AUTHORITY, b"") + tlv(UNIQUE_ID, b""),
    "an address as authority": tlv(AUTHORITY, b"192.0.2.1"),
    "no TLS": tlv(SSL, b"\xfe" + bytes(4)),
}


@pytest.mark.parametrize("tlvs", FINE.values(), ids=FINE)
def test_tlvs_that_say_nothing_of_interest_are_skipped(tlvs: bytes) -> None:
    sent = block(ENDS + tlvs)
    assert whole(decode, sent) == Header(2, len(sent), CLIENT, SERVER)


OF_NO_USE = {
    "unique id of 129 bytes": tlv(UNIQUE_ID, bytes(129)),
    "authority with NUL": tlv(AUTHORITY, b"a\0.b"),
    "authority in UTF-8": tlv(AUTHORITY, "ü.de".encode()),
    "authority not in UTF-8": tlv(AUTHORITY, b"\xff.de"),
    "authority with a port": tlv(AUTHORITY, b"a.b:443"),
    "TLS that is too long": tlv(SSL, b"\1" + bytes(4) + tlv(0x22, bytes(505))),
    "TLS without its fields": tlv(SSL, bytes(4)),
    "TLS with half a TLV": tlv(SSL, b"\1" + bytes(4) + b"\x21\0"),
    "TLS with a TLV past its end": tlv(SSL, b"\1" + bytes(4) + b"\x21\0\2a") + tlv(NOOP, b"x"),
}


@pytest.mark.parametrize("tlvs", OF_NO_USE.values(), ids=OF_NO_USE)
def test_values_that_cannot_be_right_count_as_not_sent(tlvs: bytes) -> None:
    sent = block(ENDS + tlvs)
    assert whole(decode, sent) == Header(2, len(sent), CLIENT, SERVER)


def test_of_several_tlvs_of_one_type_the_first_counts() -> None:
    tlvs = b"".join(
        tlv(kind, value)
        for kind, values in {
            ALPN: (b"h2", b"http/1.1"),
            AUTHORITY: (b"a.b", b"c.d"),
            UNIQUE_ID: (b"1", b"2"),
        }.items()
        for value in values
    )
    sent = block(ENDS + tlvs)
    assert whole(decode, sent) == Header(
        2, len(sent), CLIENT, SERVER, server_name="a.b", alpn=b"h2", unique_id=b"1"
    )


def test_tlvs_of_interest_are_read_in_any_order() -> None:
    values = {UNIQUE_ID: bytes(128), AUTHORITY: b"A.b.", SSL: b"\1\0\0\0\1", ALPN: b"h2" * 200}
    tlvs = b"".join(tlv(kind, value) for kind, value in values.items())
    sent = block(ENDS + tlvs)
    assert whole(decode, sent) == Header(
        2,
        len(sent),
        CLIENT,
        SERVER,
        server_name="a.b",
        alpn=b"h2" * 200,
        unique_id=bytes(128),
        tls=b"\1\0\0\0\1",
    )


@given(st.data())
def test_a_checksum_covers_every_byte(data: st.DataObject) -> None:
    sent = bytearray(encode(CLIENT, SERVER, server_name="a.example", checksum=True))
    at = data.draw(st.integers(16, len(sent) - 8))  # before the checksum's TLV
    sent[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError):
        decode(bytes(sent))


@given(st.binary(max_size=300), st.sampled_from([0x11, 0x12, 0x21, 0x31, 0x00, 0x44]))
def test_garbage_raises_nothing_else(garbage: bytes, kind: int) -> None:
    for sent in (garbage, SIGNATURE + garbage):
        answer(decode, sent)
    for command in (0x20, 0x21):
        assert answer(decode, block(garbage, kind, command)) is not None
    assert answer(decode, block(ENDS + garbage)) is not None
    assert answer(decode, block(ENDS + tlv(SSL, garbage))) is not None


@pytest.mark.parametrize(
    ("client", "value"),
    [
        (("TLSv1.3",), b"\1\0\0\0\0\x21\0\7TLSv1.3"),
        (("TLSv1.2", True), b"\7\0\0\0\0\x21\0\7TLSv1.2"),
        (("TLSv1.2", True, "J\u00fc"), b"\7\0\0\0\0\x21\0\7TLSv1.2\x22\0\3J\xc3\xbc"),
        (("TLSv1.2", True, "x" * 257), b"\7\0\0\0\0\x21\0\7TLSv1.2"),
        (("TLSv1.2", True, "\ud800"), b"\7\0\0\0\0\x21\0\7TLSv1.2\x22\0\1?"),
    ],
)
def test_how_a_client_speaks_tls_is_told(client: tuple[Any, ...], value: bytes) -> None:
    assert tls_of(*client) == value
    header = decode(encode(CLIENT, SERVER, tls=value))
    assert header is not None
    assert header.tls == value


def test_the_longest_that_is_ever_told_has_room() -> None:
    """No client is lost because too much is known of it."""
    tls = tls_of("TLSv1.3", True, "x" * MAX_COMMON_NAME_BYTES)
    assert len(tls) <= MAX_TLS_BYTES
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    for each in (tls, bytes(MAX_TLS_BYTES)):
        encode(CLIENT, SERVER, server_name=name, alpn=bytes(255), unique_id=bytes(128), tls=each)
