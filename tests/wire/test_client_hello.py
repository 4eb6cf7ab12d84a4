"""A ClientHello is read however it is cut; what is not exactly one is refused at once."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.errors import WireError
from edgeproxy.wire.client_hello import (
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_MESSAGE_BYTES,
    ClientHello,
    bytes_wanted,
    decode,
)
from tests.wire.cuts import answer, refused_after, whole
from tests.wire.hellos import (
    PADDING,
    SERVER_NAME,
    alpn,
    extension,
    from_openssl,
    message,
    message_of,
    record,
    records,
    server_name,
    vector,
    versions,
)

LABEL = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=6).map(lambda labels: ".".join([*labels, "x"]))


@pytest.mark.parametrize(
    "name", ["www.example.com", "a", "xn--mnchen-3ya.example", "a" * 63 + ".b"]
)
@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1"), ("p" * 255,)])
def test_what_openssl_sends_is_read(name: str, protocols: tuple[str, ...]) -> None:
    hello = whole(decode, from_openssl(name, protocols))
    assert hello.server_name == name
    assert hello.alpn == tuple(each.encode() for each in protocols)
    assert hello.legacy_version == 0x0303
    assert hello.supported_versions == (0x0304, 0x0303)


def test_without_a_name_there_is_none() -> None:
    assert whole(decode, from_openssl(None)).server_name is None
    assert whole(decode, from_openssl("192.0.2.1")).server_name is None


def test_tls_1_2_lists_no_versions() -> None:
    hello = whole(decode, from_openssl(newest=ssl.TLSVersion.TLSv1_2))
    assert hello == ClientHello("www.example.com")


@given(HOST, st.lists(st.binary(min_size=1, max_size=255), max_size=4))
@settings(max_examples=50, deadline=None)
def test_it_sees_what_a_server_sees(name: str, protocols: list[bytes]) -> None:
    extensions = [server_name(name.encode()), alpn(*protocols) if protocols else b""]
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _tls, asked, _context: seen.append(asked)
    received = ssl.MemoryBIO()
    sent = records(message(*extensions))
    received.write(sent)
    with pytest.raises(ssl.SSLError):  # it has no certificate
        context.wrap_bio(received, ssl.MemoryBIO(), server_side=True).do_handshake()
    hello = decode(sent)
    assert hello is not None
    assert hello.alpn == tuple(protocols)
    assert seen == [name]
    assert hello.server_name == name.lower()


@given(HOST, st.lists(st.integers(1, 400), max_size=200), st.data())
@settings(deadline=None)
def test_records_and_segments_may_end_anywhere(
    name: str, sizes: list[int], data: st.DataObject
) -> None:
    sent = records(message(server_name(name.encode()), alpn(b"h2")), sizes)
    cut = data.draw(st.integers(0, len(sent) - 1))
    assert decode(sent[:cut]) is None
    assert decode(sent) == ClientHello(name.lower(), (b"h2",))


def test_records_are_counted_by_their_bytes_only() -> None:
    small = message(server_name(b"a.b"))
    whole(decode, records(small, [1] * len(small)))
    large = message(extension(PADDING, bytes(2_500)), server_name(b"a.b"))
    assert decode(records(large, [1] * len(large))) == ClientHello("a.b")
    long = message(extension(PADDING, bytes(2_900)), server_name(b"a.b"))
    spread = records(long, [1] * 2_900)
    assert len(spread) > MAX_BYTES
    taken = (MAX_BYTES - 5 - len(long)) // 5 + 1  # records until the next cannot bring the rest
    assert refused_after(decode, spread) == 6 * taken
    assert "are longer than 16896 bytes" in str(answer(decode, spread))


@given(st.lists(st.integers(1, 40), max_size=300), st.integers(0, 2_000), st.data())
@settings(deadline=None)
def test_as_many_bytes_are_wanted_as_there_have_to_be(
    sizes: list[int], padding: int, data: st.DataObject
) -> None:
    sent = records(message(extension(PADDING, bytes(padding)), server_name(b"a.b")), sizes)
    cut = data.draw(st.integers(0, len(sent) - 1))
    wanted = bytes_wanted(sent[:cut])
    assert cut < wanted <= len(sent)
    assert bytes_wanted(memoryview(sent)[:cut]) == wanted


def test_who_waits_for_what_is_wanted_asks_a_few_times() -> None:
    sent = records(message(extension(PADDING, bytes(2_500)), server_name(b"a.b")), [1] * 2_700)
    calls, cut = 0, 1
    while decode(sent[:cut]) is None:
        calls, cut = calls + 1, bytes_wanted(sent[:cut])
    assert calls < 60


@pytest.mark.parametrize("size", [1_800, 4_096, 16_000])
def test_large_hellos_of_post_quantum_clients_are_read(size: int) -> None:
    padded = message(extension(PADDING, bytes(size)), server_name(b"pq.example.com"))
    for sizes in ([], [200], [1400] * 12):
        hello = decode(records(padded, sizes))
        assert hello is not None
        assert hello.server_name == "pq.example.com"


def test_the_longest_hello_is_read_and_a_byte_more_is_not() -> None:
    room = MAX_MESSAGE_BYTES - len(message(extension(PADDING, b""))) + 4
    longest = message(extension(PADDING, bytes(room)))
    assert len(longest) == MAX_MESSAGE_BYTES + 4
    sent = records(longest, [4, *[1] * ((MAX_BYTES - len(longest)) // 5 - 2)])
    assert MAX_BYTES - 5 < len(sent) <= MAX_BYTES
    assert decode(sent[:-1]) is None
    assert decode(sent) is not None
    longer = records(message(extension(PADDING, bytes(room + 1))), [4000])
    assert refused_after(decode, longer) == 9
    assert answer(decode, longer) == "the ClientHello is longer than 16384 bytes"


@pytest.mark.parametrize(
    ("sent", "after", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1, "not a TLS handshake record"),
        (b"\x80\x2e\x01\x03\x01" + bytes(60), 1, "not a TLS handshake record"),  # SSL 2.0
        (record(b"\x01", kind=23), 1, "not a TLS handshake record"),
        (record(message(), version=0x0201), 2, "not a version of TLS"),
        (b"\x16\x03\x01\x40\x01", 5, "a TLS record is longer than allowed"),
        (b"\x16\x03\x01\x41\x00", 4, "a TLS record is longer than allowed"),
        (b"\x16\x03\x01\x00\x00", 5, "a TLS handshake record is empty"),
        (record(b"\x02" + bytes(40)), 6, "the first TLS message is not a ClientHello"),
        (record(b"\x01\x01\x00\x00"), 7, "the ClientHello is longer than 16384 bytes"),
        (record(b"\x01\x00\x41\x00"), 8, "the ClientHello is longer than 16384 bytes"),
        (record(b"\x01\x00\x00\x05" + bytes(6)), 9, "something follows the ClientHello in its"),
    ],
)
def test_what_is_no_hello_is_refused_at_the_first_byte_that_shows_it(
    sent: bytes, after: int, reason: str
) -> None:
    assert refused_after(decode, sent) == after
    assert str(answer(decode, sent)).startswith(reason)


SHORT = "the ClientHello is cut short or not of a version of TLS"
NO_CIPHER = "the ClientHello lists no ciphers, half a cipher or no compression"
BEYOND = "a length in the ClientHello points beyond its end"
AFTER = "something follows the extensions of the ClientHello"
TWICE = "an extension of the ClientHello occurs twice"
NO_LIST = "a list in the ClientHello is empty or does not fill its extension"
MALFORMED = {
    "nothing at all": (b"\x01\x00\x00\x00", SHORT),
    "a cut random": (b"\x01" + vector(b"\x03\x03" + bytes(31), 3), SHORT),
    "another version": (message(version=0x0203), SHORT),
    "a long session id": (
        message(session_id=bytes(33)),
        "the session id of the ClientHello is longer than allowed",
    ),
    "no ciphers": (message(ciphers=b""), NO_CIPHER),
    "half a cipher": (message(ciphers=b"\x13"), NO_CIPHER),
    "no compression": (message(compressions=b""), NO_CIPHER),
    "bytes after the extensions": (message(after=b"\0"), AFTER),
    "half an extensions length": (message(block=b"\0"), BEYOND),
    "extensions too long": (message(block=b"\x00\x05" + extension(9, b"")), BEYOND),
    "extensions too short": (message(block=b"\x00\x03" + extension(9, b"")), AFTER),
    "half an extension header": (message(b"\0"), BEYOND),
    "an extension past the end": (message(b"\x00\x09\x00\x01"), BEYOND),
    "an extension twice": (message(extension(9, b""), extension(9, b"")), TWICE),
    "names twice": (message(server_name(b"a.b"), server_name(b"a.b")), TWICE),
    "an empty name extension": (message(extension(SERVER_NAME, b"")), BEYOND),
    "no names": (message(server_name()), NO_LIST),
    "two host names": (message(server_name(b"a.b", b"c.d")), "the ClientHello names two servers"),
    "an empty name": (message(server_name(b"")), "the server name is not a host name"),
    "a name list too short": (
        message(extension(SERVER_NAME, vector(b"\0\0\1a", 2) + b"a")),
        NO_LIST,
    ),
    "a name list too long": (message(extension(SERVER_NAME, b"\0\x05\0\0\1a")), BEYOND),
    "a name past its list": (message(extension(SERVER_NAME, vector(b"\0\0\2a", 2))), BEYOND),
    "a name without a length": (message(extension(SERVER_NAME, vector(b"\0\0", 2))), BEYOND),
    "no protocols": (message(alpn()), NO_LIST),
    "a protocol without a name": (
        message(alpn(b"h2", b"")),
        "the ClientHello offers a protocol without a name",
    ),
    "a protocol past its list": (message(extension(16, b"\0\2\2a")), BEYOND),
    "no versions": (message(versions()), NO_LIST),
    "half a version": (
        message(extension(43, vector(b"\3\4\3", 1))),
        "the ClientHello lists half a version",
    ),
    "bytes after the versions": (message(extension(43, vector(b"\3\4", 1) + b"\0")), NO_LIST),
}


@pytest.mark.parametrize(("malformed", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_lengths_fit_exactly_and_lists_are_not_empty(malformed: bytes, reason: str) -> None:
    sent = records(malformed)
    assert refused_after(decode, sent) == len(sent)
    assert answer(decode, sent) == reason


@pytest.mark.parametrize("more", [0, 1])
def test_lists_have_a_bounded_number_of_entries(more: int) -> None:
    number = MAX_ENTRIES + more
    for hello in (
        message(*(extension(0x0A00 + kind, b"") for kind in range(number))),
        message(alpn(*[b"h"] * number)),
        message(server_name(*[b""] * number, kind=5)),
    ):
        got = answer(decode, records(hello))
        if more:
            assert got == "a list in the ClientHello has more than 128 entries"
        else:
            assert isinstance(got, ClientHello)


def test_extensions_are_optional() -> None:
    assert whole(decode, records(message(block=b""))) == ClientHello(None)
    assert whole(decode, records(message())) == ClientHello(None)


def test_names_of_other_kinds_are_passed_over() -> None:
    listed = b"\x07" + vector(b"?", 2) + b"\0" + vector(b"a.b", 2)
    hello = whole(decode, records(message(extension(SERVER_NAME, vector(listed, 2)))))
    assert hello.server_name == "a.b"
    assert whole(decode, records(message(server_name(b"x", kind=9)))).server_name is None


def test_unknown_versions_are_told_too() -> None:
    hello = whole(decode, records(message(versions(0x7A7A, 0x0304, 0x0303))))
    assert hello.supported_versions == (0x7A7A, 0x0304, 0x0303)


def test_another_hello_in_the_next_record_is_not_looked_at() -> None:
    sent = records(message(server_name(b"a.b")))
    assert decode(sent + records(message(server_name(b"c.d")))) == decode(sent)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(garbage: bytes) -> None:
    real = message_of(from_openssl())
    for sent in (garbage, record(garbage), record(b"\x01" + vector(garbage, 3)), real + garbage):
        try:
            decode(sent)
        except WireError:
            pass


@given(st.binary(max_size=60))
def test_garbage_in_extensions_raises_nothing_else(garbage: bytes) -> None:
    for kind in (0, 16, 43):
        assert answer(decode, records(message(extension(kind, garbage)))) is not None
