"""What nodes say on a session is read completely or refused, whatever the bytes are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.errors import WireError
from edgeproxy.wire import session as wire
from edgeproxy.wire.session import Auth, Frame, Hello, Kind

HELLO = Hello(1, 3, b"c" * 16, "fra-1", b"n" * 32)
AUTH = Auth(b"kkkk", b"m" * 32)

HELLOS = st.builds(
    Hello,
    st.integers(1, 9),
    st.integers(9, 65535),
    st.binary(min_size=16, max_size=16),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64),
    st.binary(min_size=32, max_size=32),
)
AUTHS = st.builds(Auth, st.binary(min_size=4, max_size=4), st.binary(min_size=32, max_size=32))


@given(HELLOS)
def test_a_hello_comes_back_as_it_was(value: Hello) -> None:
    frame = wire.hello(value)
    assert wire.frame_start(frame) == Frame(Kind.HELLO, len(frame))
    assert wire.decode_hello(wire.body(frame)) == value


@given(AUTHS)
def test_an_auth_comes_back_as_it_was(value: Auth) -> None:
    frame = wire.auth(value)
    assert wire.frame_start(frame) == Frame(Kind.AUTH, len(frame))
    assert wire.decode_auth(wire.body(frame)) == value


@given(st.integers(0, 2**64 - 1))
def test_a_credit_comes_back_as_it_was(dealt_with: int) -> None:
    assert wire.decode_credit(wire.body(wire.credit(dealt_with))) == dealt_with


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(sent: bytes) -> None:
    for decode in (wire.decode_hello, wire.decode_auth, wire.decode_credit, wire.frame_start):
        try:
            decode(sent)
        except WireError:
            pass


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JUNK)
def test_any_message_pack_is_read_or_refused(value: object) -> None:
    sent = msgspec.msgpack.encode(value)
    for decode in (wire.decode_hello, wire.decode_auth):
        with pytest.raises(WireError):
            decode(sent)


@given(st.data())
def test_a_changed_hello_is_another_one_or_refused(data: st.DataObject) -> None:
    sent = bytearray(wire.body(wire.hello(HELLO)))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    try:
        assert wire.decode_hello(bytes(sent)) != HELLO
    except WireError:
        pass


@pytest.mark.parametrize(
    "fields",
    [
        [0, 1, b"c" * 16, "a", b"n" * 32],
        [2, 1, b"c" * 16, "a", b"n" * 32],
        [1, 65536, b"c" * 16, "a", b"n" * 32],
        [True, 1, b"c" * 16, "a", b"n" * 32],
        [1, 1, b"c" * 15, "a", b"n" * 32],
        [1, 1, b"c" * 17, "a", b"n" * 32],
        [1, 1, b"c" * 16, "", b"n" * 32],
        [1, 1, b"c" * 16, "a" * 65, b"n" * 32],
        [1, 1, b"c" * 16, "a b", b"n" * 32],
        [1, 1, b"c" * 16, "a\n", b"n" * 32],
        [1, 1, b"c" * 16, "é", b"n" * 32],
        [1, 1, b"c" * 16, "a", b"n" * 31],
        [1, 1, b"c" * 16, "a"],
        [],
    ],
)
def test_a_hello_with_a_field_that_is_not_allowed_is_refused(fields: list[object]) -> None:
    with pytest.raises(WireError):
        wire.decode_hello(msgspec.msgpack.encode(fields))


def test_a_newer_node_may_say_more() -> None:
    fields = [1, 3, b"c" * 16, "fra-1", b"n" * 32, {"later": 1}]
    assert wire.decode_hello(msgspec.msgpack.encode(fields)) == HELLO
    assert wire.decode_auth(msgspec.msgpack.encode([b"kkkk", b"m" * 32, 7])) == AUTH


@pytest.mark.parametrize("size", range(4))
def test_the_word_of_a_frame_is_waited_for(size: int) -> None:
    assert wire.frame_start(wire.frame(Kind.DATA, b"body")[:size]) is None


def test_the_word_of_a_data_frame_is_its_length() -> None:
    assert wire.frame(Kind.DATA, b"body") == b"\0\0\0\4body"


def test_a_frame_may_have_a_mebibyte_and_no_more() -> None:
    frame = wire.frame(Kind.DATA, bytes(1 << 20))
    assert wire.frame_start(frame[:4]) == Frame(Kind.DATA, (1 << 20) + 4)
    with pytest.raises(WireError, match="too long"):
        wire.frame(Kind.DATA, bytes((1 << 20) + 1))
    with pytest.raises(WireError, match="longer than"):
        wire.frame_start(((1 << 20) + 1).to_bytes(4))


@pytest.mark.parametrize("word", [b"\x05\0\0\0", b"\xff\0\0\0", b"\x03\0\0\x01", b"\x01\0\x01\x01"])
def test_unknown_kinds_and_lengths_that_no_kind_has_are_refused_by_the_word_alone(
    word: bytes,
) -> None:
    with pytest.raises(WireError):
        wire.frame_start(word)
