"""Writes registrations, deregistrations and ends of leases: many at a time, then one new table.

Edits that arrive during a write wait, and the next write takes all of them. A caller gets its
outcome when the table with its edit is in force and its lease has begun or ended.

For the control plane's event loop. One thread of its own reads and writes the database, one thing
at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from edgeproxy.control.background_thread import BackgroundThread
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import (
    Deregister,
    Edit,
    End,
    Outcome,
    Ownership,
    Register,
)
from edgeproxy.core.metrics import Metrics
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.registry.published import PublishedTable
from edgeproxy.store.edits import RegisteredRows

log = EventLog("registry")

END_WAIT_SECS = 5.0
"""How long the end waits for a write: longer than a write waits for another program."""

T = TypeVar("T")
_Waiting = tuple[Edit, "asyncio.Future[Outcome]"]


class RegistrationWriter:
    """Writes the registered backends of one POP."""

    def __init__(
        self, rows: RegisteredRows, leases: Leases, table: PublishedTable, metrics: Metrics
    ) -> None:
        self._rows = rows
        self._leases = leases
        self._table = table
        self._metrics = metrics
        self._thread = BackgroundThread("registry")
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, edit: Edit) -> Outcome:
        """Write an edit together with all others that wait; return its outcome."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((edit, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        return await done

    async def ownership(self) -> Ownership:
        """Return who hears the registered backends. Raises StoreError."""
        return await self.run(self._rows.ownership)

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of a function that runs on the thread of the database."""
        return await asyncio.wrap_future(self._thread.submit(function))

    def close(self) -> None:
        """Finish the write that is under way, unless it hangs, and write no more."""
        is_writing = self._writing is not None and not self._writing.done()
        self._thread.close(END_WAIT_SECS if is_writing else 0.0)  # a read may hang

    async def _write_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            batch = [(edit, done) for edit, done in waiting if not self._is_void(edit)]
            edits = [edit for edit, _ in batch]
            outcomes: list[Outcome] = []
            try:
                if edits:
                    outcomes = await self.run(partial(self._rows.apply, edits))
                    await self._table.publish()
            except StoreError as error:
                outcomes = [error] * len(edits)
            except Exception as error:  # noqa: BLE001
                log.bug("registry_failed")
                outcomes = [StoreError(repr(error))] * len(edits)
            try:
                await self._settle(edits, outcomes)
            except Exception:  # noqa: BLE001
                log.bug("registry_failed")
            outcome_of = dict(zip((done for _, done in batch), outcomes, strict=True))
            for _, done in waiting:
                if not done.done():
                    done.set_result(outcome_of.get(done, False))  # a void edit changed nothing

    def _is_void(self, edit: Edit) -> bool:
        """Return whether this edit ends an expired lease that has been renewed since."""
        return isinstance(edit, End) and edit.backend_id in self._leases

    async def _settle(self, edits: list[Edit], outcomes: list[Outcome]) -> None:
        """Begin and end the leases of a batch, and wait until the gate knows of them."""
        now = time.monotonic()
        registered = []
        for edit, outcome in zip(edits, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                continue
            if isinstance(edit, Register):
                self._leases.register(edit.backend.id, now)
                registered.append(edit.backend.id)
            elif isinstance(edit, Deregister) or outcome:
                self._leases.forget(edit.backend_id)
        count_leases(self._leases, self._metrics)
        # A backend may be about to be marked as expired. The gate takes the marks in order, so
        # this one comes last and holds.
        if registered:
            await self._table.mark(registered, expired=False)


def count_leases(leases: Leases, metrics: Metrics) -> None:
    """Put the numbers of leases into the metrics."""
    metrics.leases = len(leases)
    metrics.leases_expired = leases.expired_total
    metrics.leases_held_back = leases.held_back
