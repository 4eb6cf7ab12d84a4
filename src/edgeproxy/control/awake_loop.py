"""An event loop whose clock stands still while the process does; see `standstill`.

Every timeout, delay and pause of the control plane counts only the time in which its loop could
hear. So a probe that was answered, or a request that was sent, while the process was stopped is not
too late. The clock never goes back.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

from edgeproxy.standstill import WATCH_SECS, standstill_secs

Events = list[tuple[selectors.SelectorKey, int]]


class _WatchingSelector(selectors.DefaultSelector):
    """Waits no longer than `WATCH_SECS` at once, and says when it begins and ends to wait.

    `begins` is called without an argument, `ended` with the time at which it was to end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begins: Callable[[], object] = lambda: None
        self.ended: Callable[[float], object] = lambda _due_at: None

    def select(self, timeout: float | None = None) -> Events:
        """Return the events; none also if nothing happened within `WATCH_SECS`."""
        secs = WATCH_SECS if timeout is None else min(max(timeout, 0.0), WATCH_SECS)
        self.begins()
        due_at = time.monotonic() + secs
        events = super().select(secs)
        self.ended(due_at)
        return events


class AwakeLoop(asyncio.SelectorEventLoop):
    """`time` is that of `time.monotonic`, less all standstills."""

    def __init__(self) -> None:
        selector = _WatchingSelector()
        self._seen_at = time.monotonic()
        self._excused_secs = 0.0
        super().__init__(selector)
        selector.begins, selector.ended = self.time, self._look

    def time(self) -> float:
        """Return the seconds of this loop's clock."""
        self._look(self._seen_at)
        return self._seen_at - self._excused_secs

    def _look(self, due_at: float) -> None:
        """Leave out a standstill, if there was one after `due_at`."""
        now = time.monotonic()
        self._excused_secs += standstill_secs(due_at, now)
        self._seen_at = now
