"""Connections that are made before they are needed.

A connection is handed out once and never taken back: over TCP the pool cannot know what the backend
still has to send to the previous user.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Waiting(NamedTuple):
    made_at: float
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ConnectionPool:
    """Keeps a limited number of unused connections to each backend. For one event loop.

    Args:
        max_per_backend: How many wait for each.
        idle_timeout_secs: How long one may wait; the sooner of both ends it.
        max_lifetime_secs: How old it may be.
        connect_timeout_secs: How long making one may take.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        max_per_backend: int = 10,
        idle_timeout_secs: float = 60.0,
        max_lifetime_secs: float = 300.0,
        connect_timeout_secs: float = 5.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not all(each >= 0 for each in (max_per_backend, idle_timeout_secs, max_lifetime_secs)):
            raise ValueError("numbers and times are 0 or more")
        if not connect_timeout_secs > 0:
            raise ValueError("connect_timeout_secs is more than 0")
        self._most = max_per_backend
        self._longest_secs = min(idle_timeout_secs, max_lifetime_secs)
        self._connect_timeout_secs = connect_timeout_secs
        self._clock = clock
        self._waiting: dict[tuple[str, int], deque[_Waiting]] = defaultdict(deque)
        self._filling: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._is_closed = False

    def waiting(self, host: str, port: int) -> int:
        """Return how many connections wait for use."""
        return len(self._waiting[host, port])

    async def acquire(self, host: str, port: int) -> Connection:
        """Return an unused connection; the caller closes it.

        One that waits, if any is alive, else a new one. Raises OSError, TimeoutError.
        """
        key = (host, port)
        waiting = self._waiting[key]
        found: Connection | None = None
        while waiting and found is None:
            each = waiting.popleft()
            if self._is_fresh(each):
                found = (each.reader, each.writer)
            else:
                each.writer.close()
        self._fill(key)
        return found or await self._connect(key)

    async def close(self) -> None:
        """Close all that wait, and make no more in advance."""
        self._is_closed = True
        for task in self._filling.values():
            task.cancel()
        for waiting in self._waiting.values():
            while waiting:
                waiting.popleft().writer.close()

    def _is_fresh(self, each: _Waiting) -> bool:
        """Return whether it is young enough and the other side has not ended it.

        Bytes that wait in it are its first words, and are kept.
        """
        too_old = self._clock() - each.made_at >= self._longest_secs
        return not (too_old or each.reader.at_eof() or each.writer.is_closing() or _ended(each))

    def _fill(self, key: tuple[str, int]) -> None:
        if key not in self._filling and self._most and not self._is_closed:
            task = asyncio.get_running_loop().create_task(self._keep_full(key))
            self._filling[key] = task
            task.add_done_callback(lambda _: self._filling.pop(key, None))

    async def _keep_full(self, key: tuple[str, int]) -> None:
        waiting = self._waiting[key]
        loop = asyncio.get_running_loop()
        for _ in range(self._most - len(waiting)):
            try:
                reader, writer = await self._connect(key)
            except OSError:
                return
            waiting.append(_Waiting(self._clock(), reader, writer))
            loop.call_later(self._longest_secs, self._drop_old, waiting)

    def _drop_old(self, waiting: deque[_Waiting]) -> None:
        while waiting and self._clock() - waiting[0].made_at >= self._longest_secs:
            waiting.popleft().writer.close()

    async def _connect(self, key: tuple[str, int]) -> Connection:
        async with asyncio.timeout(self._connect_timeout_secs):
            return await asyncio.open_connection(*key)


def _ended(each: _Waiting) -> bool:
    """Return whether the backend has ended or reset it, even if that is still unread.

    The event loop may not have noticed it either.
    """
    if each.reader.exception() is not None or getattr(each.reader, "_eof", False):
        return True
    poll = select.poll()
    poll.register(each.writer.get_extra_info("socket"), select.POLLRDHUP)
    return bool(poll.poll(0))
