"""Checks one followed thing, a file or a database, on a thread of its own.

So a file system or a server that hangs holds up the check of what it holds, and nothing else: the
log says so once, and once more when the check ends. Nothing that a check finds or raises ends the
process, and the end of the process does not wait for a check.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future

from edgeproxy.control.background_thread import BackgroundThread
from edgeproxy.log import EventLog

log = EventLog("app")

HANGS_AFTER_TICKS = 15
"""A check that has not ended after so many calls of `tick`, a second apart, hangs.

Ticks and no clock: they stand still while the process does.
"""


class CollectorPause:
    """Keeps the garbage collector off while checks run, on any thread.

    The collector stops all threads while it walks a large new table. A table frees itself when it
    is replaced. Older garbage is collected by the feed before it reads, while there is little to
    walk: what is frozen is never collected.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pausing: set[object] = set()

    def begin(self, check: object) -> None:
        """Keep the collector off until this check ends."""
        with self._lock:
            self._pausing.add(check)
            gc.disable()

    def end(self, check: object, *, freezes: bool = False) -> None:
        """Let it run again unless another check runs; `freezes` exempts all there is from it."""
        with self._lock:
            if freezes:
                gc.freeze()
            self._pausing.discard(check)
            if not self._pausing:
                gc.enable()


class Follower:
    """Checks one followed thing whenever it is asked to.

    `ask`, `tick` and `end` are for the control plane's loop; `check` and `ended` run on the thread
    of the follower. `check` returns whether it has put something large into force.

    Attributes:
        name: What is followed, as the log calls it.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[], object],
        pause: CollectorPause,
        ended: Callable[[], object] = int,
        hangs: Callable[[], object] = int,
    ) -> None:
        """`ended` is called after each check; `hangs` when one is found to hang."""
        self.name = name
        self._check = check
        self._pause = pause
        self._ended = ended
        self._hangs = hangs
        self._thread = BackgroundThread(f"follow {name}")
        self._lock = threading.Lock()
        self._waiting: Future[None] | None = None
        self._running: Future[None] | None = None
        self._seen: Future[None] | None = None  # the check that ran at the last tick
        self._ticks = 0  # since it was first seen
        self._told_of: Future[None] | None = None  # the check that is known to hang
        self._is_ending = False

    @property
    def is_busy(self) -> bool:
        """Whether a check runs or is about to."""
        return self._waiting is not None or self._running is not None

    @property
    def is_waiting(self) -> bool:
        """Whether a check is about to begin."""
        return self._waiting is not None

    def ask(self) -> Future[None]:
        """Check soon; all who ask before that check begins share it. It never fails.

        Raises RuntimeError after `end`.
        """
        with self._lock:
            if self._waiting is None:
                self._waiting = self._thread.submit(self._run)
            return self._waiting

    def tick(self) -> None:
        """Report a check that hangs, and its end. To be called once a second."""
        running = self._running
        if self._told_of is not None and self._told_of is not running:
            self._told_of = None
            log.info("check_resumed", what=self.name)
        if running is None or running is not self._seen:
            self._seen, self._ticks = running, 0
            return
        self._ticks += 1
        if self._ticks == HANGS_AFTER_TICKS:
            self._told_of = running
            self._pause.end(self)
            self._hangs()
            log.warning("check_hangs", what=self.name, secs=HANGS_AFTER_TICKS)

    def end(self, wait_secs: float) -> bool:
        """Begin no more checks; return whether the one that runs has ended in time."""
        self._is_ending = True
        return self._thread.close(wait_secs)

    def _run(self) -> None:
        with self._lock:
            self._running, self._waiting = self._waiting, None
        if not self._is_ending:
            self._check_once()
        self._running = None

    def _check_once(self) -> None:
        self._pause.begin(self)
        is_large = False
        try:
            is_large = bool(self._check())
        except Exception:  # noqa: BLE001
            if not self._is_ending:
                log.bug("look_failed", what=self.name)
        finally:
            self._pause.end(self, freezes=is_large)
        self._ended()
