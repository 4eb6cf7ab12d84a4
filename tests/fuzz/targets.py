"""What is fuzzed, what it begins with, and what has to be true of every value it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from edgeproxy.core.cluster.swim.messages import (
    Ack,
    Gossip,
    Message,
    Nack,
    Page,
    Ping,
    PingRequest,
    Pull,
)
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.geo.address import normalise
from edgeproxy.core.routing.server_names import ServerNames
from edgeproxy.host_name import host_name
from edgeproxy.wire import client_hello, gossip, proxy_protocol, proxy_v1, proxy_v2
from edgeproxy.wire.client_hello import ClientHello
from edgeproxy.wire.crc32c import crc32c
from edgeproxy.wire.proxy_header import Endpoint, Header
from tests.wire.hellos import (
    PADDING,
    alpn,
    extension,
    message,
    records,
    server_name,
    vector,
    versions,
)

NAMES = ServerNames({"www.example.com": "web", "*.example.com": "any", "*": "rest"})
FOUR, SIX = Endpoint("192.0.2.1", 56324), Endpoint("2001:db8::1", 443)


@dataclass(frozen=True)
class Target:
    """A decoder.

    Attributes:
        most_bytes: With so many its answer may not be None.
        seeds: Inputs that mutations begin with.
        tokens: What means something to it.
        check: Asserts what has to be true of a value and the bytes that it was decoded from.
        repair: Makes outer lengths and checksums right again, so that what is inside is reached.
        is_datagram: It is given all bytes at once, so part of them has another answer.
    """

    name: str
    decode: Callable[[bytes], object]
    most_bytes: int
    seeds: Sequence[bytes]
    tokens: Sequence[bytes]
    check: Callable[[object, bytes], None]
    repair: Callable[[bytes], bytes]
    is_datagram: bool = False


def _is_name(name: str | None) -> bool:
    return name is None or host_name(name) == name


def check_header(value: object, data: bytes) -> None:
    assert isinstance(value, Header)
    assert 0 < value.size <= len(data)
    assert proxy_protocol.decode(data[: value.size]) == value
    assert proxy_protocol.decode(data[: value.size - 1]) is None
    assert _is_name(value.server_name)
    assert value.unique_id is None or 0 < len(value.unique_id) <= 128
    assert (value.source is None) == (value.destination is None)
    if value.source is None or value.destination is None:
        return
    for end in (value.source, value.destination):
        assert normalise(str(ip_address(end.ip))) == end.ip
        assert 0 <= end.port <= 65535
    first = proxy_protocol.decode(proxy_v1.encode(value.source, value.destination))
    assert first is not None
    assert (first.source, first.destination) == (value.source, value.destination)
    second = proxy_v2.encode(
        value.source,
        value.destination,
        server_name=value.server_name,
        alpn=value.alpn,
        unique_id=value.unique_id,
        tls=value.tls,
        checksum=True,
    )
    again = proxy_protocol.decode(second + data)
    assert again is not None
    fields = ("source", "destination", "server_name", "alpn", "unique_id", "tls")
    assert all(getattr(again, field) == getattr(value, field) for field in fields)


def check_hello(value: object, data: bytes) -> None:
    assert isinstance(value, ClientHello)
    assert len(data) > 40
    assert _is_name(value.server_name)
    assert NAMES.find(value.server_name) in {"web", "any", "rest"}
    assert all(0 < len(protocol) <= 255 for protocol in value.alpn)
    assert value.legacy_version >> 8 == 3
    assert len(value.supported_versions) <= 127


def check_message(value: object, data: bytes) -> None:
    assert isinstance(value, Message)
    assert len(data) <= gossip.MAX_BYTES
    assert gossip.decode(gossip.encode(value)) == value
    assert 0 < len(value.from_id) <= 64


def repair_header(data: bytes) -> bytes:
    if not data.startswith(proxy_v2.SIGNATURE) or len(data) < 16:
        return data
    repaired = bytearray(data)
    repaired[14:16] = (len(data) - 16 & 0xFFFF).to_bytes(2)
    checksum = repaired.find(b"\3\0\4")
    if 0 <= checksum <= len(repaired) - 7:
        repaired[checksum + 3 : checksum + 7] = bytes(4)
        repaired[checksum + 3 : checksum + 7] = crc32c(bytes(repaired)).to_bytes(4)
    return bytes(repaired)


def repair_hello(data: bytes) -> bytes:
    """Put everything into one record and one message, and the extensions up to its end."""
    size = len(data) - 9
    if not 43 <= size <= client_hello.MAX_MESSAGE_BYTES - 4:
        return data
    repaired = bytearray(b"\x16\x03\x01" + (size + 4).to_bytes(2) + b"\1" + size.to_bytes(3))
    repaired += b"\3\3" + data[11:]
    at = 44 + repaired[43]
    at += 2 + int.from_bytes(repaired[at : at + 2])
    at += 1 + int.from_bytes(repaired[at : at + 1])
    if at + 2 <= len(repaired):
        repaired[at : at + 2] = (len(repaired) - at - 2).to_bytes(2)
    return bytes(repaired)


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + vector(value, 2)


def _block(kind: int, content: bytes, command: int = 0x21) -> bytes:
    return proxy_v2.SIGNATURE + bytes((command, kind)) + vector(content, 2)


_SSL = _tlv(0x20, b"\1" + bytes(4) + _tlv(0x21, b"TLSv1.3") + _tlv(0x22, b"cn"))
_TLS = proxy_v2.tls_of("TLSv1.3", True, "cn")
_HEADERS = (
    proxy_v1.encode(FOUR, FOUR),
    proxy_v1.encode(SIX, FOUR) + b"GET / HTTP/1.1\r\n\r\n",
    proxy_v1.UNKNOWN,
    b"PROXY UNKNOWN ffff:ffff::ffff 65535 65535\r\n",
    proxy_v2.LOCAL,
    proxy_v2.encode(FOUR, FOUR),
    proxy_v2.encode(
        SIX, FOUR, server_name="www.example.com", alpn=b"h2", unique_id=b"id", tls=_TLS
    ),
    proxy_v2.encode(FOUR, FOUR, server_name="a.b", checksum=True) + b"\x16\x03\x01",
    _block(0x11, bytes(12) + _SSL + _tlv(4, bytes(9)) + _tlv(0xEA, b"vpce")),
    _block(0x22, bytes(36) + _tlv(2, b"www.Example.com.")),
    _block(0x31, bytes(216) + _tlv(5, bytes(128))),
    _block(0x00, b"anything"),
    _block(0x00, b"anything", 0x20),
)
_HELLO = message(
    server_name(b"www.example.com"),
    alpn(b"h2", b"http/1.1"),
    versions(0x7A7A, 0x0304, 0x0303),
    extension(51, bytes(90)),
)
_HELLOS = (
    records(_HELLO),
    records(_HELLO, [1, 2, 3, 50]),
    records(_HELLO, [2] * 60),
    records(message(alpn(*[b"h"] * 120), server_name(*[b"x"] * 120, kind=3))),
    records(_HELLO) + records(_HELLO),
    records(message()),
    records(message(block=b"")),
    records(message(server_name(b"a.b"), extension(PADDING, bytes(1500))), [1400]),
    records(message(server_name(b"192.0.2.1"), session_id=b""), version=0x0303),
    records(message(server_name(b"x", kind=1), extension(PADDING, bytes(16_000))), [9000]),
)

_FRA = Record("fra", 7, 2, 0, "eu", Address("192.0.2.1", 4001), Address("2001:db8::1", 4002))
_MESSAGES: tuple[Message, ...] = (
    Ping("fra", "gru", 9, 1, 1_700_000_000_000, b"head", (_FRA,)),
    Ack("gru", 9, 1, 1_700_000_000_000, 1_700_000_000_050, b"head", (_FRA, _FRA)),
    PingRequest("fra", "gru", 10),
    Nack("nrt", 10),
    Gossip("fra", (_FRA.as_state(State.SUSPECT, "nrt"),)),
    Pull("fra", 11, "gru", (_FRA,), bytes(20)),
    Page("fra", 11, "gru", (_FRA,) * 3),
)

TARGETS = (
    Target(
        "PROXY protocol",
        proxy_protocol.decode,
        proxy_protocol.MAX_BYTES,
        _HEADERS,
        (
            *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b" ", b"0", b"65536", b"::"),
            *(b"::ffff:192.0.2.1", b"255.255.255.255", proxy_v2.SIGNATURE, _SSL),
            *(_tlv(kind, b"a.b") for kind in (1, 2, 3, 4, 5, 0x20, 0xEA)),
        ),
        check_header,
        repair_header,
    ),
    Target(
        "ClientHello",
        client_hello.decode,
        client_hello.MAX_BYTES,
        _HELLOS,
        (
            *(b"\x16\x03\x01", b"\x16\x03\x03\x00\x01", b"\x01\x00", b"\x00\x00", b"\x00\x10"),
            *(server_name(b"a.b"), alpn(b"h2"), versions(0x0304), extension(0xFE0D, b"ech")),
            *(b"xn--", b".", b"\0", b"*."),
        ),
        check_hello,
        repair_hello,
    ),
    Target(
        "gossip",
        gossip.decode,
        gossip.MAX_BYTES + 1,
        tuple(map(gossip.encode, _MESSAGES)),
        (
            *(bytes((0x90 + number,)) for number in range(12)),
            *(b"\xa3fra", b"\xc4\x01x", b"\xcf" + b"\xff" * 8, b"\xd3" + b"\xff" * 8),
            *(b"\xce\xff\xff\xff\xff", b"\xa0", b"\xc0", b"\xd9\x40", b"\xa9192.0.2.1"),
        ),
        check_message,
        lambda data: data,
        is_datagram=True,
    ),
)
