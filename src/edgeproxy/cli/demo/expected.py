"""Checks the claims of the demo's steps, and the error for a claim that does not hold.

Every wait has a deadline. The passing of time proves nothing: each wait ends with a check.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

DEADLINE_SECS = 30.0
LOOK_SECS = 0.01

T = TypeVar("T")

_PAUSE = threading.Event()  # never set: waiting on it is a pause


class UnmetError(Exception):
    """A claim does not hold.

    Attributes:
        claim: What should have happened.
        expected: The value that would prove it.
        seen: The value that was found.
    """

    def __init__(self, claim: str, expected: object, seen: object) -> None:
        super().__init__(f"{claim}: expected {expected}, seen {seen}")
        self.claim = claim
        self.expected = expected
        self.seen = seen


def expect(claim: str, expected: object, seen: object) -> None:
    """Raise UnmetError unless what was seen equals what was expected."""
    if seen != expected:
        raise UnmetError(claim, expected, seen)


@contextmanager
def unbroken(claim: str) -> Iterator[None]:
    """Raise UnmetError if a connection breaks inside."""
    try:
        yield
    except OSError as error:
        raise UnmetError(claim, "an unbroken connection", error.strerror or error) from None


def eventually(claim: str, look: Callable[[], T | None]) -> T:
    """Return what `look` returns as soon as it is not None; UnmetError after DEADLINE_SECS."""
    deadline = time.monotonic() + DEADLINE_SECS
    while (value := look()) is None:
        if time.monotonic() > deadline:
            raise UnmetError(claim, f"within {DEADLINE_SECS:g} s", "not yet")
        _PAUSE.wait(LOOK_SECS)
    return value
