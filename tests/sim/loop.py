"""Virtual time, and what the engine uses of asyncio, in it.

Coroutines run until they sleep; the scheduler goes on with them when their time has come. Nothing
waits for real, nothing runs at the same time, and the same calls happen in the same order.
"""

from __future__ import annotations

import heapq
import itertools
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any


class Scheduler:
    """What is to be done when.

    Attributes:
        now: Seconds.
    """

    def __init__(self) -> None:
        self.now = 1_000.0
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def at(self, secs: float, do: Callable[[], object]) -> None:
        """Do something at a time; in the order of the calls if it is the same time."""
        heapq.heappush(self._queue, (secs, next(self._order), do))

    def after(self, secs: float, do: Callable[[], object]) -> None:
        """Do something later."""
        self.at(self.now + secs, do)

    def run(self, secs: float) -> None:
        """Let some time pass."""
        end = self.now + secs
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = end


Guard = Callable[[Callable[[], object]], Callable[[], object]]
"""Makes of something that a process does what happens only while that process lives."""


class Loop:
    """The event loop of one process."""

    def __init__(self, scheduler: Scheduler, guard: Guard) -> None:
        self._scheduler = scheduler
        self._guard = guard
        self.read: Callable[[], object] = lambda: None
        self._tasks: list[Task] = []

    def call_later(self, secs: float, do: Callable[..., object], *args: Any) -> None:
        self._scheduler.after(secs, self._guard(lambda: do(*args)))

    def call_soon_threadsafe(self, do: Callable[..., object], *args: Any) -> None:
        self.call_later(0.001, do, *args)

    def add_reader(self, _socket: object, read: Callable[[], object]) -> None:
        self.read = read

    def remove_reader(self, _socket: object) -> None:
        self.read = lambda: None

    def create_task(self, looking_up: Coroutine[Any, Any, None]) -> Task:
        """Take what looks names up for ever; here the addresses are known."""
        looking_up.close()
        return Task(self, None)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        task = Task(self, coroutine)
        self._tasks.append(task)
        self.call_later(0, task.step)
        return task

    def close(self) -> None:
        """End all that runs."""
        for task in self._tasks:
            task.cancel()


class Task:
    """A coroutine that runs."""

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, Any] | None) -> None:
        self._loop = loop
        self._coroutine = coroutine

    def step(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is None:
            return
        with suppress(StopIteration):
            secs = coroutine.send(None)
            self._coroutine = coroutine
            self._loop.call_later(secs, self.step)

    def cancel(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()


@types.coroutine
def sleep(secs: float) -> Generator[float, None, None]:
    """Sleep in virtual time."""
    yield secs


class Asyncio:
    """Stands in for the module; `running` returns the loop of the process that acts."""

    def __init__(self, running: Callable[[], Loop]) -> None:
        self._running = running
        self.sleep = sleep

    def get_running_loop(self) -> Loop:
        return self._running()

    def ensure_future(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        return self._running().start(coroutine)

    async def wait(self, _tasks: object, timeout: float) -> None:
        await sleep(timeout)

    async def gather(self, *_tasks: object, return_exceptions: bool) -> None:
        assert return_exceptions
