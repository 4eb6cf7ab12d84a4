"""Notices that a file says something else: edited in place, replaced, deleted and made again.

What counts is what it says, not when it was touched: so the swap of a symbolic link, as Kubernetes
does it, is a change, and a new copy of the same text is none. With the package `watchfiles` a
change is noticed at once, and at the next interval in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

GRACE_SECS = 0.5
"""Whoever replaces a file by deleting it first gets so long to make it again."""


async def changes(path: Path, interval_secs: float) -> AsyncIterator[None]:
    """Yield once, and then each time that the file says something else, or is gone for good.

    The first time stands for what was written between the reading of the file and now.
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
    """Return a digest of what the file says, None if it cannot be read."""
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return None


async def _watch(folder: Path, touched: asyncio.Event) -> None:
    """Set `touched` when something happens in a folder, if that can be known."""
    try:
        from watchfiles import awatch
    except ImportError:
        return
    with suppress(OSError, RuntimeError):  # the interval does without
        async for _ in awatch(folder, watch_filter=None, debounce=50, step=10, recursive=False):
            touched.set()
