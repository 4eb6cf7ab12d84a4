"""Gives the CPU to other threads during a long computation, without starving the computation.

Called between its steps (`core/pacing`). On a quiet host a yield takes a microsecond, and a thread
that carries clients runs as soon as it is woken. Beside other programs that compute, each yield
takes the kernel's time slice, some milliseconds: a table of 20,000 backends, 0.4 s of work, took
50 s beside four of them. So yields may take at most `MAX_YIELD_RATIO` times as long as the
computation. Beyond that the computation keeps the CPU until it has caught up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

MAX_YIELD_RATIO = 9.0
MAX_CREDIT_SECS = 0.01
"""Time for yields that a computation may save up, so that a burst of clients is not held up."""


class CpuYield:
    """A `Pause` of `core/pacing`. For one thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sched_yield: Callable[[], object] = os.sched_yield,
        max_yield_ratio: float = MAX_YIELD_RATIO,
    ) -> None:
        self._clock = clock
        self._max_yield_ratio = max_yield_ratio
        self._sched_yield = sched_yield
        self._resumed_at = 0.0
        self._credit_secs = MAX_CREDIT_SECS

    def __call__(self) -> None:
        """Yield the CPU, unless the yields so far took too long."""
        now = self._clock()
        earned_secs = (now - self._resumed_at) * self._max_yield_ratio
        self._credit_secs = min(self._credit_secs + earned_secs, MAX_CREDIT_SECS)
        self._resumed_at = now
        if self._credit_secs < 0:
            return
        self._sched_yield()
        self._resumed_at = self._clock()
        self._credit_secs -= self._resumed_at - now
