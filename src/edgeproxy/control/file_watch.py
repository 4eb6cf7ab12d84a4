"""Notices that the content of a configuration file has changed: edited, replaced or recreated.

Only the content counts, not the time of a change. So the swap of a symbolic link, as Kubernetes
does it, is a change, and a new copy of the same text is none. With the package `watchfiles` a
change is noticed at once, otherwise at the next interval.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from edgeproxy import regular_file
from edgeproxy.control.background_thread import BackgroundThread

GRACE_SECS = 0.5
"""How long a deleted file may be missing before that counts as a change."""
END_WAIT_SECS = 1.0

_NEVER = threading.Event()


class WatchedFile:
    """One file, as it was when it was looked at last. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: bytes | None = None
        self._is_first = True

    def has_changed(self) -> bool:
        """Return whether its content has changed or it is gone; may wait for a new one.

        The first time it has, since whoever asks may have read the file earlier.
        """
        content = _content(self._path)
        if content is None and self._before is not None:
            _NEVER.wait(GRACE_SECS)
            content = _content(self._path)
        changed = self._is_first or content != self._before
        self._before, self._is_first = content, False
        return changed


async def touches(path: Path, interval_secs: float) -> AsyncIterator[None]:
    """Yield now, at every interval, and as soon as anything happens in the file's folder."""
    touched, stopping = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(touched.set)

    # On a thread: even to begin to watch a folder may take long.
    watching = threading.Thread(
        target=_watch, args=(path.parent, stopping, tell), name="file_watch", daemon=True
    )
    watching.start()
    try:
        while True:
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_secs):
                    await touched.wait()
            touched.clear()
    finally:
        stopping.set()
        watching.join(END_WAIT_SECS)


async def changes(path: Path, interval_secs: float) -> AsyncIterator[None]:
    """Yield once, and then whenever the content of the file has changed or the file is gone.

    The first `yield` stands for changes since the caller read the file. The file is read on a
    thread of its own, so that one that hangs does not hold up the loop.
    """
    file, thread = WatchedFile(path), BackgroundThread("file_watch")
    try:
        async for _ in touches(path, interval_secs):
            if await asyncio.wrap_future(thread.submit(file.has_changed)):
                yield
    finally:
        thread.close(0)


def _content(path: Path) -> bytes | None:
    """Return a digest of the content, None if the file cannot be read."""
    try:
        return sha256(regular_file.read(path, regular_file.MAX_CONFIG_BYTES)).digest()
    except OSError:
        return None


def _watch(folder: Path, stopping: threading.Event, tell: Callable[[], object]) -> None:
    """Call `tell` at each event in a folder, if `watchfiles` is installed."""
    try:
        from watchfiles import watch
    except ImportError:
        return
    with suppress(OSError, RuntimeError):  # changes are noticed at the next interval
        for _ in watch(
            folder,
            watch_filter=None,
            debounce=50,
            step=10,
            stop_event=stopping,
            raise_interrupt=False,
            recursive=False,
        ):
            tell()
