"""What a node has seen of each origin, and what of it has been forgotten.

A vector says up to which transaction of each origin a node has seen all of them. The hash beside
it chains what was in them: two different pasts under one origin, as of a restored backup, are told
apart. A generation says up to where tombstones have been dropped; only nodes that have seen as much
may take it over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from edgeproxy.core.cluster.cells import DIGEST_BYTES, Cell, digest_of

Origin = bytes
ORIGIN_BYTES = 16
HASH_BYTES = 8


class Head(NamedTuple):
    """The last transaction seen of an origin, and the hash that chains all up to it."""

    seq: int
    chain: bytes


NOTHING = Head(0, bytes(HASH_BYTES))

Vector = Mapping[Origin, Head]
Generation = Mapping[Origin, int]


def seq_of(vector: Vector, origin: Origin) -> int:
    """Return up to which transaction of an origin all have been seen."""
    return vector.get(origin, NOTHING).seq


def covers(vector: Vector, generation: Generation) -> bool:
    """Return whether all that was dropped has been seen."""
    return all(seq_of(vector, origin) >= seq for origin, seq in generation.items())


def lacks(mine: Vector, theirs: Vector) -> bool:
    """Return whether they have seen what I have not."""
    return any(head.seq > seq_of(mine, origin) for origin, head in theirs.items())


def contradicts(mine: Vector, theirs: Vector) -> bool:
    """Return whether we have seen two different pasts of one origin."""
    return any(
        head.seq == seq_of(mine, origin) and head.chain != mine[origin].chain
        for origin, head in theirs.items()
        if origin in mine
    )


def both(mine: Vector, theirs: Vector) -> dict[Origin, Head]:
    """Return what has been seen by one or the other."""
    result = dict(mine)
    for origin, head in theirs.items():
        result[origin] = max(head, result.get(origin, NOTHING))
    return result


def both_dropped(mine: Generation, theirs: Generation) -> dict[Origin, int]:
    """Return what has been dropped by one or the other."""
    result = dict(mine)
    for origin, seq in theirs.items():
        result[origin] = max(seq, result.get(origin, 0))
    return result


def vector_id(vector: Vector) -> bytes:
    """Return 8 bytes that are equal for equal vectors only."""
    return _hash(b"%b%d,%b" % (origin, *head) for origin, head in sorted(vector.items()))


def generation_id(generation: Generation) -> bytes:
    """Return 8 bytes that are equal for equal generations only."""
    return _hash(b"%b%d," % item for item in sorted(generation.items()))


def chain_after(chain: bytes, cells: Iterable[Cell]) -> bytes:
    """Return the hash that follows `chain` with a transaction of these cells, in any order."""
    digests = sorted(map(digest_of, cells))
    return _hash([chain, *(digest.to_bytes(DIGEST_BYTES) for digest in digests)])


def _hash(parts: Iterable[bytes]) -> bytes:
    return blake2b(b"".join(parts), digest_size=HASH_BYTES).digest()
