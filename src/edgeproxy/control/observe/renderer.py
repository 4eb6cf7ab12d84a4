"""Renders answers for readers, one at a time, in one thread: neither the gate's nor the loop's.

However many ask, their answers take one thread, which lets go of the interpreter between a few
items (`rest`, see `core/pacing`), so that clients are served meanwhile. Those who ask for the same
thing share an answer that is begun after they have asked. One that was costly is kept for
`KEPT_SECS`, for all who ask within that time. Who would have to wait too long is refused at once.
For one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from edgeproxy.control.cpu_yield import CpuYield
from edgeproxy.core.pacing import Pause
from edgeproxy.errors import EdgeProxyError

Pieces = Sequence[bytes]
"""An answer in small pieces: joining a large one would stop all threads."""

Render = Callable[[Pause], Pieces]
"""Makes an answer, and calls its argument every few items."""

COSTLY_SECS = 0.05
"""Processor time; what takes less is made anew for everybody."""
KEPT_SECS = 1.0
MAX_WAIT_SECS = 4.0


class BusyError(EdgeProxyError):
    """Too many other answers have to be made before this one."""


class _Kept(NamedTuple):
    pieces: Pieces
    until: float


class _Order:
    """One answer that is yet to be made, and how many wait for it."""

    def __init__(self) -> None:
        self.readers = 0
        self.task: asyncio.Task[Pieces] | None = None


class Renderer:
    """Makes answers, by key: a kind of answer, and what else tells one from another."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "render")
        self._one_at_a_time = asyncio.Lock()
        self._orders: dict[tuple[Hashable, ...], _Order] = {}
        self._kept: dict[tuple[Hashable, ...], _Kept] = {}
        self._cost_secs: dict[Hashable, float] = {}  # of the last answer of each kind
        self._rest = CpuYield()

    async def answer(self, key: tuple[Hashable, ...], render: Render) -> Pieces:
        """Return an answer. Raises BusyError, and what `render` raises."""
        kept = self._kept_answer(key)
        if kept is not None:
            return kept
        order = self._orders.get(key)
        if order is None:
            if self._wait_secs() > MAX_WAIT_SECS:
                raise BusyError("too many ask at once; ask again in a moment")
            order = self._orders[key] = _Order()
            order.task = asyncio.create_task(self._make(key, order, render))
        assert order.task is not None
        order.readers += 1
        try:
            # A reader that leaves must not cancel the answer the others wait for.
            return await asyncio.shield(order.task)
        finally:
            order.readers -= 1

    def _wait_secs(self) -> float:
        """Return how long the answers that are ordered will take, as far as is known."""
        return sum(self._cost_secs.get(key[0], 0.0) for key in self._orders)

    def _kept_answer(self, key: tuple[Hashable, ...]) -> Pieces | None:
        kept = self._kept.get(key)
        return kept.pieces if kept is not None and time.monotonic() < kept.until else None

    async def _make(self, key: tuple[Hashable, ...], order: _Order, render: Render) -> Pieces:
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            del self._orders[key]  # later requests get the next answer: this one begins now
            kept = self._kept_answer(key)
            if kept is not None or not order.readers:
                return kept or ()
            began_at = loop.time()
            pieces, cpu_secs = await loop.run_in_executor(self._thread, self._timed, render)
            self._cost_secs[key[0]] = loop.time() - began_at
            if cpu_secs > COSTLY_SECS:
                made = self._kept[key] = _Kept(pieces, time.monotonic() + KEPT_SECS)
                loop.call_later(KEPT_SECS, self._forget, key, made)
            return pieces

    def _forget(self, key: tuple[Hashable, ...], kept: _Kept) -> None:
        if self._kept.get(key) is kept:
            del self._kept[key]

    def _timed(self, render: Render) -> tuple[Pieces, float]:
        began_at = time.thread_time()
        pieces = render(self._rest)
        return pieces, time.thread_time() - began_at
