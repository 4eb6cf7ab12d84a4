"""Watches over the control plane's loop: signs of life for systemd, and how late timers are."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from edgeproxy.process import systemd

LAG_INTERVAL_SECS = 1.0


async def show_life(reach_gate: Callable[[], Awaitable[object]]) -> None:
    """Tell systemd, if it asks for that, that this loop and the gate thread are alive.

    `reach_gate` returns when the gate thread has answered.
    """
    import asyncio

    if (interval_secs := systemd.watchdog_secs()) <= 0:
        return
    while True:
        await reach_gate()
        systemd.notify("WATCHDOG=1")
        # The loop's clock leaves out standstills, systemd's does not.
        await asyncio.sleep(interval_secs / 4)


class LoopLag:
    """How late the last timer of the loop was: what else runs there holds timers up.

    Attributes:
        secs: By how much; 0 before the first measurement.
    """

    def __init__(self) -> None:
        self.secs = 0.0

    async def measure(self) -> None:
        """Measure again and again."""
        import asyncio

        while True:
            due = time.monotonic() + LAG_INTERVAL_SECS  # the loop's clock leaves out standstills
            await asyncio.sleep(LAG_INTERVAL_SECS)
            self.secs = max(time.monotonic() - due, 0.0)
