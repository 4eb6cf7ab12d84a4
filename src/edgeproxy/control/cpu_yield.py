"""Gives the CPU and the interpreter to other threads during a long computation.

Called between its steps (`core/pacing`). It sleeps for a moment rather than only yield: a thread
that is always ready to run uses up what the kernel grants this process, and beside other programs
the threads that carry clients then wait for their time slices (10 to 20 ms for each client while a
table of 100,000 backends was built). Nor does a yield make sure that another thread gets the
interpreter. Naps may take at most `MAX_NAP_RATIO` times as long as the computation, however long
the kernel makes them: a computation is never starved.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

NAP_SECS = 0.00005
MAX_NAP_RATIO = 1.0
MAX_CREDIT_SECS = 0.01
"""Time for naps that a computation may save up, so that a burst of clients is not held up."""


def nap() -> None:
    """Sleep for a moment."""
    select.select((), (), (), NAP_SECS)


class CpuYield:
    """A `Pause` of `core/pacing`. For one thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], object] = nap,
    ) -> None:
        self._clock = clock
        self._give_way = give_way
        self._resumed_at = 0.0
        self._credit_secs = MAX_CREDIT_SECS

    def __call__(self) -> None:
        """Let other threads run, unless that took too long so far."""
        now = self._clock()
        earned_secs = (now - self._resumed_at) * MAX_NAP_RATIO
        self._credit_secs = min(self._credit_secs + earned_secs, MAX_CREDIT_SECS)
        self._resumed_at = now
        if self._credit_secs < 0:
            return
        self._give_way()
        self._resumed_at = self._clock()
        self._credit_secs -= self._resumed_at - now
