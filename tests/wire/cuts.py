"""What every decoder promises about bytes that come in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgeproxy.errors import WireError

T = TypeVar("T")
Decode = Callable[[bytes | memoryview], T | None]


def answer(decode: Decode[T], received: bytes) -> T | str | None:
    """Return the value, None where more bytes are needed, or the message of the error."""
    try:
        return decode(received)
    except WireError as error:
        return str(error)


def whole(decode: Decode[T], received: bytes) -> T:
    """Return the value of bytes that are exactly enough, cut everywhere and fused with more."""
    for end in range(len(received)):
        assert decode(received[:end]) is None, f"an answer after {end} bytes"
    value = decode(received)
    assert value is not None
    for payload in (b"\0", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", received, b"\xff" * 20_000):
        assert decode(received + payload) == value
    assert decode(memoryview(received)) == value
    return value


def refused_after(decode: Decode[T], received: bytes) -> int:
    """Return after how many bytes the error is raised; it must stay the same error."""
    answers = [answer(decode, received[:end]) for end in range(len(received) + 1)]
    first = next(end for end, each in enumerate(answers) if each is not None)
    assert isinstance(answers[first], str)
    assert set(answers[first:]) == {answers[first]}
    return first
