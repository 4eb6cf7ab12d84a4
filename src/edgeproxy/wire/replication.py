"""Replication messages: one frame each, which the transport delimits.

    version 1   kind 1   the fields as MessagePack, in the order of `core.cluster.messages`

If the kind has its highest bit set, the fields are compressed (zlib, RFC 1950): rows are alike, and
take a tenth. A frame has at most 1 MiB, also when its fields are not compressed. Nothing in it is
trusted: a message that is decoded is one that a node could have sent, by its form. A greeting is of
version 1 for ever, so that nodes of any versions can tell each other which they speak; all else is
of the newest.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from edgeproxy.core.cluster.cells import (
    ALIVE,
    DIGEST_BYTES,
    GONE,
    LIFE,
    MAX_ID_BYTES,
    Cell,
    is_text,
    is_value,
)
from edgeproxy.core.cluster.clock import VOID
from edgeproxy.core.cluster.messages import VERSIONS, Cells, Hello, Message, Pull, Push, Reset
from edgeproxy.core.cluster.vectors import (
    HASH_BYTES,
    ORIGIN_BYTES,
    Generation,
    Vector,
    covers,
)
from edgeproxy.errors import WireError

MAX_FRAME_BYTES = 1 << 20
COMPRESSED = 0x80
COMPRESSED_FROM_BYTES = 1 << 10
MAX_ORIGINS = 10_000
MAX_CELLS = 10_000
MAX_VALUES = 32
MAX_NAME_BYTES = 64
_MAX_NUMBER = (1 << 63) - 1
_MAX_VERSION = 255
_HELLO_VERSION = 1

_KINDS: dict[int, type[Message]] = {1: Hello, 2: Push, 3: Pull, 4: Cells, 5: Reset}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_DECODERS = {number: msgspec.msgpack.Decoder(kind) for number, kind in _KINDS.items()}
_HEADER_BYTES = 2


def encode(message: Message) -> bytes:
    """Return a message as a frame. Raises WireError for one that nobody could decode."""
    _check(message)
    body = msgspec.msgpack.encode(message)
    if _HEADER_BYTES + len(body) > MAX_FRAME_BYTES:
        raise WireError("the replication message is longer than 1 MiB")
    if isinstance(message, Hello):  # every version can read it
        return bytes((_HELLO_VERSION, _NUMBERS[Hello])) + body
    kind = _NUMBERS[type(message)]
    if len(body) >= COMPRESSED_FROM_BYTES:
        kind, body = kind | COMPRESSED, zlib.compress(body, zlib.Z_BEST_SPEED)
    return bytes((VERSIONS[1], kind)) + body


def decode(frame: bytes) -> Message:
    """Return the message in a whole frame. Raises WireError if it holds none."""
    if not _HEADER_BYTES < len(frame) <= MAX_FRAME_BYTES:
        raise WireError("a replication frame is empty or longer than 1 MiB")
    is_greeting = (frame[0], frame[1]) == (_HELLO_VERSION, _NUMBERS[Hello])
    if not is_greeting and not VERSIONS[0] <= frame[0] <= VERSIONS[1]:
        raise WireError("a replication frame is of a version that is not spoken here")
    decoder = _DECODERS.get(frame[1] & ~COMPRESSED)
    if decoder is None:
        raise WireError("a replication frame is of an unknown kind")
    body = memoryview(frame)[_HEADER_BYTES:]
    try:
        message = decoder.decode(_decompressed(body) if frame[1] & COMPRESSED else body)
    except (msgspec.MsgspecError, RecursionError):
        raise WireError("a replication frame does not hold the fields of its kind") from None
    _check(message)
    return message


def _decompressed(body: memoryview) -> bytes:
    """Return what was compressed. Raises WireError for anything else, and for more than a frame."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(body, MAX_FRAME_BYTES)
    except zlib.error:
        raise WireError("a replication frame is not compressed as it says") from None
    if not stream.eof or stream.unused_data:
        raise WireError("a replication frame is cut, or holds more than 1 MiB")
    return found


def _check(message: Message) -> None:
    _CHECKS[type(message)](message)


def _check_hello(hello: Hello) -> None:
    oldest, newest = hello.versions
    _require(0 < oldest <= newest <= _MAX_VERSION, "versions that cannot be")
    _require(len(hello.origin) == ORIGIN_BYTES, "an origin of another length")
    _check_hash(hello.vector_id)
    _check_hash(hello.generation_id)
    _require(len(hello.digest) == DIGEST_BYTES, "a digest of another length")
    _check_past(hello.vector, hello.generation)


def _check_push(push: Push) -> None:
    _check_hash(push.generation_id)
    _check_hash(push.previous)
    _require(0 < push.seq <= _MAX_NUMBER, "a transaction with a number that cannot be")
    _require(bool(push.cells), "a transaction without cells")
    _check_cells(push.cells)
    for cell in push.cells:
        _require(
            (cell.origin, cell.seq) == (push.origin, push.seq), "cells of several transactions"
        )


def _check_pull(pull: Pull) -> None:
    _check_number(pull.number)
    _check_hash(pull.generation_id)
    _check_past(pull.vector, {})


def _check_answer(answer: Cells | Reset) -> None:
    _check_number(answer.number)
    _check_number(answer.part)
    _check_hash(answer.generation_id)
    _check_cells(answer.cells)
    _check_past(answer.vector, answer.generation if isinstance(answer, Reset) else {})
    if isinstance(answer, Reset):
        _require(0 <= answer.clock < VOID, "a clock that cannot be")


def _check_number(number: int) -> None:
    _require(0 <= number <= _MAX_NUMBER, "a number that cannot be")


def _check_hash(value: bytes) -> None:
    _require(len(value) == HASH_BYTES, "a hash of another length")


def _check_past(vector: Vector | None, generation: Generation) -> None:
    """Check what a node has seen and dropped: it has seen what it has dropped."""
    seen = vector or {}
    _require(len(seen) <= MAX_ORIGINS and len(generation) <= MAX_ORIGINS, "too many origins")
    for origin, head in seen.items():
        _require(len(origin) == ORIGIN_BYTES, "an origin of another length")
        _require(0 < head.seq <= _MAX_NUMBER, "a transaction with a number that cannot be")
        _check_hash(head.chain)
    _require(min(generation.values(), default=1) > 0, "a generation that cannot be")
    _require(covers(seen, generation), "a generation that its sender has not seen")


def _check_cells(cells: tuple[Cell, ...]) -> None:
    _require(len(cells) <= MAX_CELLS, "too many cells")
    for cell in cells:
        (table, name), group, stamp, origin, seq, values = cell
        # One expression, because there may be tens of thousands of cells.
        if not (
            table
            and is_text(table, MAX_NAME_BYTES)
            and group
            and is_text(group, MAX_NAME_BYTES)
            and is_text(name, MAX_ID_BYTES)
            and 0 < stamp < VOID
            and len(origin) == ORIGIN_BYTES
            and 0 < seq <= _MAX_NUMBER
            and len(values) <= MAX_VALUES
            and all(map(is_value, values))
            and (group != LIFE or values in (ALIVE, GONE))
        ):
            raise WireError("a replication message has a cell that cannot be")
    groups = {(cell.key, cell.group) for cell in cells}
    _require(len(groups) == len(cells), "two cells of the same group of one row")


def _require(is_so: bool, fault: str) -> None:
    if not is_so:
        raise WireError(f"a replication message has {fault}")


_CHECKS: dict[type[Any], Callable[[Any], None]] = {
    Hello: _check_hello,
    Push: _check_push,
    Pull: _check_pull,
    Cells: _check_answer,
    Reset: _check_answer,
}
