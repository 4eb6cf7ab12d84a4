"""Writes what backends ask for: all that waits together, in one transaction, then one new table.

What became of each is told when that table is in force. For the control plane's event loop; the
database is read and written in a thread of its own, one thing at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from edgeproxy.core.backends.registration import Edit, Outcome
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.store.edits import RegisteredRows

log = EventLog("registry")

T = TypeVar("T")
_Waiting = tuple[Edit, "asyncio.Future[Outcome]"]


class RegistrationWriter:
    """The one who writes.

    `publish` puts into force what is stored. `is_void` is asked right before something is written
    whether it no longer is to be, which counts as not done. `settle` is told what became of edits
    before those who asked for them are.
    """

    def __init__(
        self,
        rows: RegisteredRows,
        publish: Callable[[], Awaitable[object]],
        is_void: Callable[[Edit], bool],
        settle: Callable[[list[Edit], list[Outcome]], Awaitable[object]],
    ) -> None:
        self._rows = rows
        self._publish = publish
        self._is_void = is_void
        self._settle = settle
        self._thread = ThreadPoolExecutor(1, "registry")
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, edit: Edit) -> Outcome:
        """Write this, together with whatever else is waiting; return what became of it."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((edit, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        return await done

    async def known(self) -> set[str]:
        """Return the ids of those whose home is here. Raises StoreError."""
        return await self.run(self._rows.known)

    async def run(self, function: Callable[[], T]) -> T:
        """Return what this gives, in the thread of the database."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Write nothing any more."""
        self._thread.shutdown(wait=True)

    async def _write_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            batch = [each for each in waiting if not self._is_void(each[0])]
            edits = [edit for edit, _ in batch]
            outcomes = await self._written(edits) if edits else []
            try:
                await self._settle(edits, outcomes)
            except Exception:  # noqa: BLE001
                log.bug("registry_failed")
            told = dict(zip((done for _, done in batch), outcomes, strict=True))
            for _, done in waiting:
                if not done.done():
                    done.set_result(told.get(done, False))

    async def _written(self, edits: list[Edit]) -> list[Outcome]:
        try:
            outcomes = await self.run(partial(self._rows.apply, edits))
            await self._publish()
        except StoreError as error:
            return [error] * len(edits)
        except Exception as error:  # noqa: BLE001
            log.bug("registry_failed")
            return [StoreError(repr(error))] * len(edits)
        return outcomes
