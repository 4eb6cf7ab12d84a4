"""Ends the leases of registered backends that send no heartbeats, and deletes withheld rows.

A backend whose lease expires takes no new clients from that moment: the gate marks it. Then the end
of the lease is written, and the backend is in no table any more, at any POP, unless it has a lease
at another one. While the database cannot be written, the backend stays marked, and every check
tries again.

Several times in a TTL, and before a lease can expire, the database says who hears the backends:

* One that has a live lease with another POP, too, is not marked, and is not missed here.
* A mark is lifted when the backend has another live lease, or is in the table in force no more: it
  would outlive the table, and keep clients from a backend that registers anew with another POP.
* A lease that is not live in the database, such as one of a row that an operator deleted, ends here
  without more. Its next heartbeat gets "not registered".
* Backends that are withheld for long are deleted, whichever POPs they registered with.

For the control plane's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import Edit, End, Ownership, Remove, removals
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
"""Checks in one TTL: how old the knowledge is of who hears a backend elsewhere."""
IDLE_LOOK_SECS = 600.0
"""Between two looks at a database in which no backend has a lease here."""
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
        self._overdue: set[str] = set()  # expired, which is yet to be written
        self._marked: set[str] = set()  # at the gate
        self._ownership = Ownership()  # as last known
        self._removals: list[Remove] = []  # yet to be written
        self._is_loaded = False
        self._looked_at = float("-inf")
        self._writing: asyncio.Task[None] | None = None

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
            ownership = await self._writer.ownership()
        except StoreError as error:
            log.debug("leases_unread", reason=error)
            return
        self._is_loaded = True
        now = time.monotonic()
        self._learn(ownership, now)
        for backend_id in ownership.here & self._table.backends().keys():
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
        is_due = due_at is not None and due_at <= now
        # A POP without leases looks rarely, for the rows of others that are to be deleted.
        concerns_us = due_at is not None or self._marked or self._ownership.withheld
        period_secs = self._leases.ttl_secs / OWNERSHIP_CHECKS_IN_TTL
        is_turn = now - self._looked_at >= (period_secs if concerns_us else IDLE_LOOK_SECS)
        if is_due or is_turn or self._marked - self._overdue:
            await self._look(now)
        await self._expire(now)
        count_leases(self._leases, self._metrics)
        self._overdue.difference_update(self._leases)
        is_writing = self._writing is not None and not self._writing.done()
        if not is_writing and (self._overdue or self._removals):
            self._writing = asyncio.ensure_future(self._write())

    async def _expire(self, now: float) -> None:
        """End the leases that are due, and keep clients from backends that have no other."""
        elsewhere = self._ownership.elsewhere
        left = self._leases.left(elsewhere, now)
        was_holding = self._leases.holding
        expired = self._leases.expired(now, elsewhere)
        if self._leases.holding and not was_holding:
            log.warning("leases_held_back", leases=len(self._leases))
        elif was_holding and not self._leases.holding:
            log.info("leases_resumed", leases=len(self._leases))
        for backend_id in left:
            log.info("lease_moved", backend=backend_id)
        for backend_id in expired:
            log.warning("lease_expired", backend=backend_id, ttl_secs=self._leases.ttl_secs)
        self._overdue.update(left, expired)
        if expired:
            self._marked.update(expired)
            await self._table.mark(expired, expired=True)

    async def _has_heard_all(self) -> bool:
        """Read what has come before now; return whether that is all that waits.

        A heartbeat that came in time may not have been read when its lease is judged: this process
        may have been held up.
        """
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return not self._missed_heartbeats.is_behind

    async def _look(self, now: float) -> None:
        """Follow what the database says of who hears the backends."""
        leased, written = set(self._leases), self._marked - self._overdue
        try:
            async with asyncio.timeout(OWNERSHIP_TIMEOUT_SECS):
                ownership = await self._writer.ownership()
        except (StoreError, TimeoutError):
            self._looked_at = now
            return
        self._learn(ownership, now)
        for backend_id in leased - self._ownership.here:
            self._leases.forget(backend_id)
        in_use = written - self._ownership.withheld.keys()
        await self._lift(in_use | self._ownership.elsewhere)

    def _learn(self, ownership: Ownership, now: float) -> None:
        self._ownership = ownership
        self._looked_at = now
        self._removals = removals(ownership.withheld, int(time.time()))

    async def _lift(self, in_use: Collection[str]) -> None:
        """Take back the marks of backends that have another lease, or are in no table any more."""
        table = self._table.backends()
        lifted = {
            backend_id
            for backend_id in self._marked
            if backend_id in in_use or backend_id in self._leases or backend_id not in table
        }
        self._marked -= lifted
        await self._table.mark(lifted, expired=False)

    async def _write(self) -> None:
        """Write which leases have ended, and delete the rows that were withheld for long."""
        ends = [End(backend_id, int(time.time())) for backend_id in self._overdue]
        edits: list[Edit] = [*ends, *self._removals]
        self._removals = []
        outcomes = await asyncio.gather(*map(self._writer.write, edits))
        in_use = set()
        for end, outcome in zip(ends, outcomes, strict=False):
            if isinstance(outcome, StoreError):
                continue
            self._overdue.discard(end.backend_id)
            if outcome:
                log.info("backend_deregistered", backend=end.backend_id, reason="expired")
            else:
                in_use.add(end.backend_id)
        deleted = outcomes[len(ends) :].count(True)
        if deleted:
            log.info("withheld_deleted", rows=deleted)
        await self._lift(in_use)
