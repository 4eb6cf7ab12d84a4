"""A hybrid logical clock: stamps that follow wall time, and each other.

A stamp has 64 bits: milliseconds since 1970, then a counter of 16 bits that runs over into them. A
clock never goes back and follows every stamp that it sees, however far ahead: what somebody writes
is newer than all that they could have seen. A POP whose wall time is ahead takes the others along.
"""

from __future__ import annotations

COUNTER_BITS = 16
VOID = 1 << (47 + COUNTER_BITS)
"""From here on nothing is a stamp. It is some thousand years ahead."""


def tick(clock: int, now_ms: int, floor: int = 0) -> int:
    """Return the stamp of a new write, which the clock shows from then on.

    It is larger than the clock and larger than `floor`, the largest stamp that the write replaces.
    Raises OverflowError where no stamp is left.
    """
    stamp = max(clock + 1, now_ms << COUNTER_BITS, floor + 1)
    if stamp >= VOID:
        raise OverflowError("the clock has no stamps left: the wall time of a POP is years ahead")
    return stamp


def ms_of(stamp: int) -> int:
    """Return the milliseconds since 1970 in a stamp."""
    return stamp >> COUNTER_BITS


def first_of(ms: int) -> int:
    """Return the smallest stamp with these milliseconds."""
    return ms << COUNTER_BITS
