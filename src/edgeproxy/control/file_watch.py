"""Notices that the content of a configuration file has changed: edited, replaced or recreated.

Only the content counts, not the time of a change. So the swap of a symbolic link, as Kubernetes
does it, is a change, and a new copy of the same text is none. With the package `watchfiles` a
change is noticed at once, otherwise at the next interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from edgeproxy import regular_file

GRACE_SECS = 0.5
"""How long a deleted file may be missing before that counts as a change."""


async def changes(path: Path, interval_secs: float) -> AsyncIterator[None]:
    """Yield once, and then whenever the content of the file has changed or the file is gone.

    The first `yield` stands for changes since the caller read the file.
    """
    before = _content(path)
    yield
    touched = asyncio.Event()
    watching = asyncio.get_running_loop().create_task(_watch(path.parent, touched))
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_secs):
                    await touched.wait()
            touched.clear()
            content = _content(path)
            if content is None and before is not None:
                await asyncio.sleep(GRACE_SECS)
                content = _content(path)
            if content != before:
                before = content
                yield
    finally:
        watching.cancel()


def _content(path: Path) -> bytes | None:
    """Return a digest of the content, None if the file cannot be read."""
    try:
        return sha256(regular_file.read(path, regular_file.MAX_CONFIG_BYTES)).digest()
    except OSError:
        return None


async def _watch(folder: Path, touched: asyncio.Event) -> None:
    """Set `touched` at each event in a folder, if `watchfiles` is installed."""
    try:
        from watchfiles import awatch
    except ImportError:
        return
    with suppress(OSError, RuntimeError):  # changes are noticed at the next interval
        async for _ in awatch(folder, watch_filter=None, debounce=50, step=10, recursive=False):
            touched.set()
