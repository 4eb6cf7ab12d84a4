"""A pool of connections that are opened before they are needed.

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
        max_per_backend: Unused connections to keep to each backend.
        idle_timeout_secs, max_lifetime_secs: The shorter one is the maximum age of an unused
            connection.
        connect_timeout_secs: How long opening a connection may take.
        clock: Returns monotonic seconds.
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
        limits = (max_per_backend, idle_timeout_secs, max_lifetime_secs)
        if not all(limit >= 0 for limit in limits):  # false for NaN, too
            raise ValueError("numbers and times must be 0 or more")
        if not connect_timeout_secs > 0:
            raise ValueError("connect_timeout_secs must be more than 0")
        self._most = max_per_backend
        self._longest_secs = min(idle_timeout_secs, max_lifetime_secs)
        self._connect_timeout_secs = connect_timeout_secs
        self._clock = clock
        self._waiting: dict[tuple[str, int], deque[_Waiting]] = defaultdict(deque)
        self._filling: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._is_closed = False

    def waiting(self, host: str, port: int) -> int:
        """Return the number of unused connections to a backend."""
        return len(self._waiting[host, port])

    async def acquire(self, host: str, port: int) -> Connection:
        """Return an unused connection; the caller closes it.

        It comes from the pool if one there is alive, else it is new. Raises OSError, TimeoutError.
        """
        key = (host, port)
        waiting = self._waiting[key]
        connection: Connection | None = None
        while waiting and connection is None:
            oldest = waiting.popleft()
            if self._is_fresh(oldest):
                connection = (oldest.reader, oldest.writer)
            else:
                oldest.writer.close()
        self._fill(key)
        return connection or await self._connect(key)

    async def close(self) -> None:
        """Close all unused connections, and open no more in advance."""
        self._is_closed = True
        for task in self._filling.values():
            task.cancel()
        for waiting in self._waiting.values():
            while waiting:
                waiting.popleft().writer.close()

    def _is_fresh(self, waiting: _Waiting) -> bool:
        """Return whether a connection is young enough and the backend has not closed it.

        Bytes that the backend has sent already do not matter: the user will read them.
        """
        if self._clock() - waiting.made_at >= self._longest_secs:
            return False
        return not (waiting.reader.at_eof() or waiting.writer.is_closing() or _is_ended(waiting))

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


def _is_ended(waiting: _Waiting) -> bool:
    """Return whether the backend has closed or reset a connection.

    The end may stand behind unread bytes, and the event loop may not have noticed it yet.
    """
    if waiting.reader.exception() is not None or getattr(waiting.reader, "_eof", False):
        return True
    poll = select.poll()
    poll.register(waiting.writer.get_extra_info("socket"), select.POLLRDHUP)
    return bool(poll.poll(0))
