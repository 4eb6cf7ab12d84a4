"""Notices that somebody has written a routing database file, without opening or locking it.

A reader disturbs writers: while one reads, a program that does not wait for locks cannot commit. So
only the file system is asked, of the file and of its write-ahead log, and a check is due when the
writes have paused for one look, or after `LONGEST_DELAY_SECS` of them. A large database that is
written all the time is not read all the time either: a check waits until `SHARE_OF_TIME` times the
length of the last read has passed.

Two writes within one tick of the file system's clock may look like one. The pause covers that: it
is longer than a tick.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECS = 0.02
LONGEST_DELAY_SECS = 0.5
SHARE_OF_TIME = 4

Stamp = tuple[int, ...]


class EditWatch:
    """Looks at one database file, on a thread of its own that nobody waits for."""

    def __init__(self, path: Path, wake: Callable[[], object]) -> None:
        """`wake` is called on that thread when a check is due."""
        self._files = (path, Path(f"{path}-wal"))
        self._wake = wake
        self._over = threading.Event()
        self._resting_until = 0.0
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look from now on, unless that has been asked for before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edit_watch", daemon=True)
            self._thread.start()

    def note_read(self, began_at: float) -> None:
        """A read that began at this time (monotonic seconds) has just ended."""
        now = time.monotonic()
        self._resting_until = now + (now - began_at) * SHARE_OF_TIME

    def end(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        seen = self._stamps()
        written_at: float | None = None  # the first write that is yet to be told
        while not self._over.wait(LOOK_SECS):
            now = time.monotonic()
            before, seen = seen, self._stamps()
            pauses = seen == before
            if not pauses and written_at is None:
                written_at = now
            if written_at is None or now < self._resting_until:
                continue
            if pauses or now - written_at >= LONGEST_DELAY_SECS:
                written_at = None
                self._wake()

    def _stamps(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp_of(file) for file in self._files)


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes when a file is written or replaced, None if there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
