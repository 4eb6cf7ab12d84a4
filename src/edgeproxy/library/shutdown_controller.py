"""Lets open connections finish before a program ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ShutdownController:
    """Counts open connections and waits for them. For one event loop."""

    def __init__(self) -> None:
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._asked = asyncio.Event()
        self._waiters = 0

    @property
    def active(self) -> int:
        """The number of open connections."""
        return self._active

    @property
    def is_shutting_down(self) -> bool:
        """Whether shutdown has been requested."""
        return self._asked.is_set()

    def shut_down(self) -> None:
        """Request shutdown."""
        self._asked.set()

    async def wait_for_signal(self) -> None:
        """Return on SIGTERM, SIGINT, or `shut_down`."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._asked.set)
        self._waiters += 1
        try:
            await self._asked.wait()
        finally:
            self._waiters -= 1
            if not self._waiters:  # all waiters share the signal handlers
                for number in SIGNALS:
                    loop.remove_signal_handler(number)

    @contextmanager
    def connection_guard(self) -> Iterator[None]:
        """Count a connection for as long as the block lasts."""
        self._active += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def wait_for_drain(self, timeout_secs: float = 30.0) -> bool:
        """Wait until no connection is open. Return False if the time ran out first."""
        try:
            async with asyncio.timeout(timeout_secs):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
