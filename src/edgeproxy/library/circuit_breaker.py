"""One circuit breaker; see `edgeproxy.core.backends.breaker`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from edgeproxy.core.backends.breaker import Breaker, BreakerSettings, circuit_of
from edgeproxy.core.backends.live_state import Circuit, LiveState

TRIAL_SECS = 60.0
"""Seconds after which a trial without a recorded result counts as over."""


class CircuitBreaker:
    """Decides whether to try an operation that has failed before. Safe to use from several threads.

    Args:
        failure_threshold: Failures in a row that open it.
        success_threshold: Successes that close it again.
        timeout_secs: How long it stays open.
        trials: Callers that may try at a time when it is half-open.
        clock: Returns monotonic seconds.

    Raises ValueError for thresholds below 1, times below 0, and numbers that are not finite.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        success_threshold: int = 3,
        timeout_secs: float = 30.0,
        *,
        trials: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        numbers = (failure_threshold, success_threshold, trials, timeout_secs)
        if not (all(map(math.isfinite, numbers)) and min(numbers[:3]) >= 1 and timeout_secs >= 0):
            raise ValueError(
                "thresholds and trials must be 1 or more, timeout_secs 0 or more; all finite"
            )
        settings = BreakerSettings(True, failure_threshold, success_threshold, timeout_secs, trials)
        self._breaker = Breaker(settings, lambda _id, _state: None)
        self._live = LiveState("")
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return str(circuit_of(self._live, self._clock()))

    def allow(self) -> bool:
        """Return whether to try now. If so, the caller must record the result."""
        with self._lock:
            now = self._clock()
            if self._live.passed_over_until > now:
                return False
            if self._live.circuit is not Circuit.CLOSED:
                self._breaker.trying(self._live, TRIAL_SECS, now)
            return True

    def record_success(self) -> None:
        """The operation has succeeded."""
        with self._lock:
            self._breaker.answered(self._live)

    def record_failure(self) -> None:
        """The operation has failed."""
        with self._lock:
            self._breaker.failed(self._live, self._clock())
