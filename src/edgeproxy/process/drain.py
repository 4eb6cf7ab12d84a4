"""Ends the service in an orderly way: no new clients, then open sessions get their time.

Sessions that are still open at the end of the shutdown timeout are closed. The settings can spread
this over its last part, so that their clients do not all come back at the same moment. A stop
signal during the drain closes them at once. After a crash there is nothing left to drain.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.contract import Engine
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.log import EventLog
from edgeproxy.process import systemd
from edgeproxy.process.lifecycle import Event, Lifecycle

log = EventLog("app")

POLL_SECS = 0.05


class Drain:
    """The drain of one proxy."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        engine: Engine,
        listeners: Listeners,
        warm_pool: WarmPool | None,
        metrics: Metrics,
        active: Callable[[], dict[str, int]],
        *,
        timeout_secs: float,
        spread_secs: float,
    ) -> None:
        """`active` returns how many slots of each backend are in use."""
        self._lifecycle = lifecycle
        self._engine = engine
        self._listeners = listeners
        self._warm_pool = warm_pool
        self._metrics = metrics
        self._active = active
        self._timeout_secs = timeout_secs
        self._spread_secs = min(spread_secs, timeout_secs)

    async def run(self) -> None:
        """Accept no more clients, wait for open sessions, stop the engine."""
        if self._lifecycle.has_crashed:
            return
        self._stop_accepting()
        log.info("draining", connections=self._engine.live(), timeout_secs=self._timeout_secs)
        self._lifecycle.add(Event.DRAIN_BEGUN)
        await self._wait_for_sessions()
        self._lifecycle.add(Event.DRAIN_ENDED)
        cut = self._engine.live()
        self._engine.stop()
        metrics = self._metrics
        log.info(
            "stopped",
            cut=cut,
            accepted=metrics.accepted,
            closed=metrics.closed.total(),
            refused=metrics.refused.total(),
            failovers=metrics.failovers,
            bytes_in=metrics.bytes_in,
            bytes_out=metrics.bytes_out,
            still_active=sum(self._active().values()),
        )

    def _stop_accepting(self) -> None:
        has_successor = self._lifecycle.has_successor
        if not has_successor:
            systemd.notify("STOPPING=1")
        self._listeners.close(has_successor=has_successor)
        self._engine.stop_accepting()
        if self._warm_pool is not None:
            self._engine.call(self._warm_pool.close)

    async def _wait_for_sessions(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_secs
        to_spread = 0
        while self._engine.live() and self._lifecycle.is_draining:
            left_secs = deadline - loop.time()
            if left_secs <= 0:
                break
            if left_secs < self._spread_secs:
                to_spread = to_spread or self._engine.live()
                self._close_down_to(math.ceil(to_spread * left_secs / self._spread_secs))
            await asyncio.sleep(min(POLL_SECS, left_secs))

    def _close_down_to(self, max_open: int) -> None:
        """Close open sessions until no more than `max_open` are left."""

        def close() -> None:
            # Counted on the gate thread, where sessions end: one that is ending already is not
            # open any more, so no other session is closed in its place.
            to_close = self._engine.live() - max_open

            def is_chosen(_ticket: object) -> bool:
                nonlocal to_close
                to_close -= 1
                return to_close >= 0

            self._engine.close_sessions(is_chosen)

        if self._engine.live() > max_open:
            self._engine.call(close)
