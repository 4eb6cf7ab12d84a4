"""JSON of long lists in small pieces.

Encoding or joining a long list at once would stop all threads for its whole length.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import msgspec

PIECE_BYTES = 32 * 1024


def encoded(content: object) -> bytes:
    """Return the JSON of something small."""
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can hold it
        return json.dumps(msgspec.to_builtins(content), separators=(",", ":")).encode()


def array(items: Iterable[object]) -> Iterator[bytes]:
    """Yield a JSON array of these items."""
    return _array(encoded(item) for item in items)


def with_array(head: object, name: str, items: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a JSON object: the members of `head`, and an array of items that are JSON already."""
    yield encoded(head).removesuffix(b"}")
    yield b',"%b":' % name.encode()
    yield from _array(items)
    yield b"}"


def _array(items: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    opening = b"["
    for item in items:
        waiting.append(item)
        size += len(item)
        if size >= PIECE_BYTES:
            yield opening + b",".join(waiting)
            waiting.clear()
            size, opening = 0, b","
    if waiting or opening == b"[":
        yield opening + b",".join(waiting)
    yield b"]"
