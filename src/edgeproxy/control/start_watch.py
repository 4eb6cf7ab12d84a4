"""Ends a start that hangs, when the process is asked to stop.

A start reads files and databases on the main thread. One of them may be waited for inside the
system: its file system does not answer, or a FIFO is in the place of a side file of SQLite. Then
Python never gets to handle a signal, nor may the system deliver one to this thread. So another one
takes the signals meanwhile, and reads their numbers from the pipe into which Python writes them.

A start that notices the signal by itself ends in order: it has `PATIENCE_SECS`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection

from edgeproxy import log as events

log = events.EventLog("app")

PATIENCE_SECS = 5.0


class StartWatch:
    """Watches as long as its block runs, which must be on the main thread.

    `abandon` is called before the process is ended; it must not wait for the start.
    """

    def __init__(self, signals: Collection[int], abandon: Callable[[], object]) -> None:
        self._signals = frozenset(signals)
        self._abandon = abandon
        self._has_ended = threading.Event()
        self._hearing = -1
        self._mask: set[signal.Signals | int] = set()

    def __enter__(self) -> None:
        """Begin."""
        heard, self._hearing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._hearing, False)
        signal.set_wakeup_fd(self._hearing, warn_on_full_buffer=False)
        threading.Thread(target=self._run, args=(heard,), name="start", daemon=True).start()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def __exit__(self, *_error: object) -> None:
        """The start has ended, in whatever way."""
        self._has_ended.set()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.set_wakeup_fd(-1)
        os.close(self._hearing)

    def _run(self, heard: int) -> None:
        try:
            while numbers := os.read(heard, 512):
                if not self._signals.isdisjoint(numbers):
                    if not self._has_ended.wait(PATIENCE_SECS):
                        self._end()
                    return
        finally:
            os.close(heard)

    def _end(self) -> None:
        log.warning(
            "start_abandoned",
            reason="asked to stop, but the start waits for the system: does the file system of "
            "the routing database answer, and are the files beside it regular ones?",
        )
        self._abandon()
        events.stop()
        os._exit(0)
