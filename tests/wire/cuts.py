"""What every decoder promises about bytes that come in pieces."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TypeVar

from edgeproxy.errors import WireError

FEW = 2_000
NEAR = 60
STEP = 211
"""A prime number: it meets records at every byte of them, whatever their length."""

T = TypeVar("T")
Decode = Callable[[bytes | memoryview], T | None]


def answer(decode: Decode[T], received: bytes) -> T | str | None:
    """Return the value, None where more bytes are needed, or the message of the error."""
    try:
        return decode(received)
    except WireError as error:
        return str(error)


def cuts(length: int) -> list[int]:
    """Return where to cut bytes: few anywhere, many near both ends and at places in between."""
    if length <= FEW:
        return list(range(length))
    return [
        *range(NEAR),
        *range(NEAR, length - NEAR, STEP),
        *range(length - NEAR, length),
    ]


def whole(decode: Decode[T], received: bytes) -> T:
    """Return the value of bytes that are exactly enough, cut everywhere and fused with more."""
    for end in cuts(len(received)):
        assert decode(received[:end]) is None, f"an answer after {end} bytes"
    value = decode(received)
    assert value is not None
    for payload in (b"\0", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", received, b"\xff" * 20_000):
        assert decode(received + payload) == value
    assert decode(memoryview(received)) == value
    return value


def refused_after(decode: Decode[T], received: bytes) -> int:
    """Return after how many bytes the error is raised; it must stay the same error."""
    first = bisect_left(
        range(len(received)), True, key=lambda end: is_answered(decode, received[:end])
    )
    near = range(max(first - NEAR, 0), min(first + NEAR, len(received)))
    refusal = answer(decode, received[:first])
    assert isinstance(refusal, str)
    for end in {*cuts(len(received)), *near, len(received)}:
        expected = refusal if end >= first else None
        assert answer(decode, received[:end]) == expected, f"another answer after {end} bytes"
    return first


def is_answered(decode: Decode[object], received: bytes) -> bool:
    return answer(decode, received) is not None
