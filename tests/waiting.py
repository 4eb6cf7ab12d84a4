"""Waiting for a condition with a deadline, instead of sleeping for luck."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE = threading.Event()  # never set: waiting on it is a pause


def wait_until(
    condition: Callable[[], object], what: str = "condition", deadline_secs: float = 20.0
) -> None:
    """Return as soon as `condition()` is true; fail naming `what` after `deadline_secs`."""
    end = time.monotonic() + deadline_secs
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_secs} s: {what}")
        PAUSE.wait(0.01)
