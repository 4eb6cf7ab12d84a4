"""Ends the leases of registered backends that send no heartbeats, and deletes their rows.

A backend whose lease expires takes no new clients from that moment; then its row is deleted. While
the database cannot be written, the backend stays excluded, and every check tries the delete again.

Before a lease can expire, and several times in a TTL, the database says which backends have their
home here. A backend that has registered with another POP loses its lease here, and its next
heartbeat here gets "not registered".

For the control plane's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine

from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import Deregister
from edgeproxy.core.metrics import Metrics
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from edgeproxy.registry.published import PublishedTable
from edgeproxy.registry.writer import RegistrationWriter, count_leases

log = EventLog("registry")

CHECK_SECS = 1.0
"""The longest pause between two checks of the leases."""
OWNERSHIP_TIMEOUT_SECS = 1.0
"""How long the database may take to say which backends are ours; later, leases expire anyway."""
OWNERSHIP_CHECKS_IN_TTL = 4
"""Checks in one TTL. With 4, a backend that moved gets its 404 before its old lease expires."""
TURNS = 10
"""Turns of the loop that a heartbeat may take from its connection being accepted to being heard."""
LATE_SECS = OWNERSHIP_TIMEOUT_SECS + 0.5
"""A check that is later than this was held up: the proxy received no heartbeats meanwhile."""


class LeaseWatch:
    """Watches the leases of one POP."""

    def __init__(
        self,
        leases: Leases,
        writer: RegistrationWriter,
        table: PublishedTable,
        missed_heartbeats: MissedHeartbeats,
        metrics: Metrics,
    ) -> None:
        self._leases = leases
        self._writer = writer
        self._table = table
        self._missed_heartbeats = missed_heartbeats
        self._metrics = metrics
        self._overdue: set[str] = set()  # expired, with a row that is to be deleted
        self._is_loaded = False
        self._ownership_due_at = 0.0
        self._deletions: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Check the leases until this is cancelled."""
        last = time.monotonic()
        while True:
            pause_secs = self._pause_secs(last)
            await asyncio.sleep(pause_secs)
            now = time.monotonic()
            if now - last - pause_secs > LATE_SECS:
                self._leases.excuse(now - last, now)
            last = now
            try:
                await self._check(now)
            except Exception:  # noqa: BLE001
                log.bug("leases_failed")

    async def load(self) -> None:
        """Begin a lease for every backend that is registered here, if the database can be read."""
        try:
            known = await self._writer.known()
        except StoreError as error:
            log.debug("leases_unread", reason=error)
            return
        self._is_loaded = True
        now = time.monotonic()
        for backend_id in known & self._table.backends().keys():
            if backend_id not in self._leases:
                self._leases.register(backend_id, now)
        count_leases(self._leases, self._metrics)

    def _pause_secs(self, now: float) -> float:
        if self._leases.holding:
            return min(self._leases.ttl_secs / 10, CHECK_SECS)
        next_at = self._leases.next_at()
        return CHECK_SECS if next_at is None else min(max(next_at - now, 0.001), CHECK_SECS)

    async def _check(self, now: float) -> None:
        if not self._is_loaded:
            await self.load()
        self._table.backends()  # ends the leases of backends that are gone
        due_at = self._leases.next_at()
        if due_at is not None and due_at <= now and not await self._has_heard_all():
            return
        self._missed_heartbeats.excuse(now)
        due_at = self._leases.next_at()
        if due_at is not None and (due_at <= now or self._ownership_due_at <= now):
            self._ownership_due_at = now + self._leases.ttl_secs / OWNERSHIP_CHECKS_IN_TTL
            await self._forget_moved()
        was_holding = self._leases.holding
        expired = self._leases.expired(now)
        if self._leases.holding and not was_holding:
            log.warning("leases_held_back", leases=len(self._leases))
        elif was_holding and not self._leases.holding:
            log.info("leases_resumed", leases=len(self._leases))
        for backend_id in expired:
            log.warning("lease_expired", backend=backend_id, ttl_secs=self._leases.ttl_secs)
        if expired:
            await self._table.mark(expired, expired=True)
        self._overdue.update(expired)
        count_leases(self._leases, self._metrics)
        if self._overdue:
            overdue = [backend_id for backend_id in self._overdue if backend_id not in self._leases]
            self._overdue.clear()
            self._begin(self._delete(overdue))

    async def _has_heard_all(self) -> bool:
        """Read what has come before now; return whether that is all that waits.

        A heartbeat that came in time may not have been read when its lease is judged: this process
        may have been held up.
        """
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return not self._missed_heartbeats.is_behind

    async def _forget_moved(self) -> None:
        """End the leases of backends that have another home now."""
        leased = set(self._leases)
        try:
            async with asyncio.timeout(OWNERSHIP_TIMEOUT_SECS):
                ours = await self._writer.known()
        except (StoreError, TimeoutError):
            return
        for backend_id in leased - ours:
            self._leases.forget(backend_id)

    async def _delete(self, overdue: list[str]) -> None:
        """Delete the rows of backends whose lease has expired."""
        outcomes = await asyncio.gather(
            *(self._writer.write(Deregister(backend_id, is_expired=True)) for backend_id in overdue)
        )
        moved = []
        for backend_id, outcome in zip(overdue, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                if backend_id not in self._leases:
                    self._overdue.add(backend_id)
            elif outcome:
                log.info("backend_deregistered", backend=backend_id, reason="expired")
            else:
                moved.append(backend_id)
        if moved:
            await self._table.mark(moved, expired=False)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._deletions.add(task)  # or it could be collected before it ends
        task.add_done_callback(self._deletions.discard)
