"""What nodes tell each other. All that carries cells names the generation of its sender.

A receiver of another generation takes no cell of it: what the sender has forgotten, or not yet,
would come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from edgeproxy.core.cluster.cells import Cell, size_of
from edgeproxy.core.cluster.vectors import Generation, Origin, Vector

VERSIONS = (1, 1)
"""The oldest and the newest version of these messages that this node speaks."""

CHUNK_BYTES = 256 << 10
"""About how much one message has of cells, unless a single row or cell has more."""


class Hello(NamedTuple):
    """What the sender has seen.

    Attributes:
        versions: The oldest and the newest version of the messages that it speaks.
        origin: Under which it writes.
        vector_id: That of all it has seen.
        generation_id: That of all it has dropped.
        digest: The sum over all its cells: equal if the other two are.
        vector: What it has seen; None if it only asks whether there is a difference.
        generation: What it has dropped.
    """

    versions: tuple[int, int]
    origin: Origin
    vector_id: bytes
    generation_id: bytes
    digest: bytes
    vector: Vector | None
    generation: Generation


class Push(NamedTuple):
    """The cells of one transaction, sent once it is durable.

    Attributes:
        previous: The chain hash up to the transaction before.
    """

    generation_id: bytes
    origin: Origin
    seq: int
    previous: bytes
    cells: tuple[Cell, ...]


class Wanted(IntEnum):
    """What a pull asks for."""

    UNSEEN = 0
    """All cells whose dots the vector does not cover."""
    ALL = 1
    """All cells, because the two nodes differ where they must not."""
    CLONE = 2
    """All that the peer has, also its generation, in place of one's own."""


class Pull(NamedTuple):
    """Asks for cells.

    Attributes:
        number: Returned with the answer.
        vector: What the sender has seen.
    """

    number: int
    wanted: Wanted
    generation_id: bytes
    vector: Vector


class Cells(NamedTuple):
    """A part of the answer to a pull. The last part says what has been seen by then.

    Attributes:
        number: That of the pull.
        part: Counted from 0.
        vector: What the sender had seen when it was asked; None in all parts but the last.
    """

    number: int
    part: int
    generation_id: bytes
    cells: tuple[Cell, ...]
    vector: Vector | None


class Reset(NamedTuple):
    """A part of a clone: as `Cells`; the last part has all else that a clone needs.

    Attributes:
        generation: What the sender has dropped.
        clock: The largest stamp that it has seen, also of what it has dropped.
    """

    number: int
    part: int
    generation_id: bytes
    cells: tuple[Cell, ...]
    vector: Vector | None
    generation: Generation
    clock: int


Message = Hello | Push | Pull | Cells | Reset


class Send(NamedTuple):
    """A message to a peer, or to all peers."""

    peer: str | None
    message: Message


def parts_of(cells: Iterable[Cell]) -> Iterator[tuple[tuple[Cell, ...], bool]]:
    """Yield cells in parts that fit into a message, at least one, each with whether it is last."""
    part: list[Cell] = []
    size = 0
    for cell in cells:
        more = size_of(cell)
        if part and size + more > CHUNK_BYTES:
            yield tuple(part), False
            part, size = [], 0
        part.append(cell)
        size += more
    yield tuple(part), True
