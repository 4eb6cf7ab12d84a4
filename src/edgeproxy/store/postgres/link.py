"""The connections to a PostgreSQL server: a pool, on an event loop in a thread of its own.

Any thread may read and edit; that thread waits, the loop does not. Each piece of work is one
transaction, and the server ends it after the query timeout. If the connection is lost, a read is
repeated on a new one, and so is an edit that had not reached its commit.

With a callback for notifications, one more connection listens for changes and notices the end of
the server. It reconnects with a back-off, without a limit, to a host that takes edits, and the pool
follows it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.store.postgres.connection import (
    UNREACHABLE,
    PostgresError,
    ReadOnlyError,
    connect,
    is_standby,
    naming_faults,
    url_of,
)
from edgeproxy.store.postgres.driver_loop import DriverLoop
from edgeproxy.store.postgres.url import PostgresSettings

if TYPE_CHECKING:
    from asyncpg import Pool

    from edgeproxy.store.postgres.connection import PostgresConnection

log = EventLog("store")
_T = TypeVar("_T")

CHANNEL = "edgeproxy"
FIRST_PAUSE_SECS = 0.1
LONGEST_PAUSE_SECS = 5.0
LOOK_SECS = 5.0
"""Seconds between two checks of the listening connection, so that a vanished server is noticed."""
END_SECS = 1.0
"""How long a server that hangs may delay `close`."""
LAST_END_SECS = 0.1
LOCK_WAIT_SECS = 5.0
"""How long an edit waits for another program's edit; the same as with a file."""


class Link:
    """The connections to one server.

    Attributes:
        down: Why there is no listening connection, or None.
    """

    def __init__(
        self, settings: PostgresSettings, noticed: Callable[[bool], object] | None = None
    ) -> None:
        """`noticed` is called on the loop's thread: with True when something has changed.

        It is called with False when the server is up (again), and a change may have been missed.
        Without `noticed`, nothing listens, and each piece of work has its own connection.
        """
        self.settings = settings
        self.url = url_of(settings)
        self.down: StoreError | None = None
        self._noticed = noticed
        self._pool: Pool[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running: set[Future[Any]] = set()
        self._starting = threading.Lock()

    def read(self, work: Callable[[PostgresConnection], Awaitable[_T]]) -> _T:
        """Return the result of `work` on one state of the database. Raises StoreError."""
        return self._run(self._transaction(work, is_read=True))

    def edit(self, work: Callable[[PostgresConnection], Awaitable[_T]]) -> _T:
        """Return the result of `work`, once it is committed. Raises StoreError."""
        return self._run(self._transaction(work, is_read=False))

    def call_later(self, secs: float, function: Callable[[], object]) -> None:
        """Call this on the loop's thread; from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(loop.call_later, secs, function)

    def interrupt(self) -> None:
        """Make the work under way fail at once; from any thread, also in a signal handler."""
        for work in list(self._running):
            work.cancel()

    def close(self) -> None:
        """End all connections and the thread, unless that hangs."""
        with self._starting:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        ending = asyncio.run_coroutine_threadsafe(self._end(), loop)
        try:
            ending.result(2 * END_SECS)
        except TimeoutError:
            return  # something keeps the loop, such as a file of certificates that hangs
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        with self._starting:
            if self._loop is None:
                self._loop = DriverLoop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="postgres", daemon=True
                )
                self._thread.start()
                if self._noticed is not None:
                    asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
            running = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._running.add(running)
        try:
            return running.result()
        except CancelledError:
            raise PostgresError(self.url, "did not answer before this process stopped") from None
        finally:
            self._running.discard(running)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=END_SECS)
            await asyncio.wait(others, timeout=LAST_END_SECS)  # a task may have blocked the loop
        pool, self._pool = self._pool, None
        if pool is not None:
            with suppress(Exception):  # the pool may never have been open
                pool.terminate()
        await asyncio.sleep(0)  # terminated connections close their sockets

    # -- transactions -----------------------------------------------------------------

    async def _transaction(
        self, work: Callable[[PostgresConnection], Awaitable[_T]], *, is_read: bool
    ) -> _T:
        try:
            return await self._attempt(work, is_read=is_read)
        except _Unbegun as unbegun:
            if not unbegun.fault.is_lost and not isinstance(unbegun.fault, ReadOnlyError):
                raise unbegun.fault from None
            await self._expire()
        try:
            return await self._attempt(work, is_read=is_read)
        except _Unbegun as unbegun:
            raise unbegun.fault from None

    async def _attempt(
        self, work: Callable[[PostgresConnection], Awaitable[_T]], *, is_read: bool
    ) -> _T:
        """Do the work once. Raises _Unbegun if nothing has happened, so that it may be repeated."""
        secs = self.settings.query_timeout_secs
        async with self._connection() as connection:
            ending = False
            try:
                async with naming_faults(self.settings), asyncio.timeout(secs):
                    transaction = connection.transaction(
                        isolation="repeatable_read" if is_read else "read_committed",
                        readonly=is_read,
                    )
                    await transaction.start()
                    await connection.execute(_limits(secs))
                    try:
                        result = await work(connection)
                    except StoreError:
                        await transaction.rollback()
                        raise
                    ending = True
                    await transaction.commit()
                    return result
            except PostgresError as fault:
                _terminate(connection)
                if ending and not is_read:
                    raise PostgresError(
                        self.url,
                        "was lost during a commit: it is not known whether the change was stored; "
                        f"`edgeproxy db show` tells ({fault.reason})",
                    ) from None
                if is_read or isinstance(fault, ReadOnlyError) or fault.is_lost:
                    raise _Unbegun(fault) from None
                raise
            except StoreError:
                raise
            except BaseException:
                _terminate(connection)
                raise

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PostgresConnection]:
        if self._noticed is None:
            connection = await connect(self.settings)
            try:
                yield connection
            finally:
                with suppress(Exception):
                    await connection.close(timeout=1)
            return
        pool = await self._pooled()
        async with naming_faults(self.settings, while_connecting=True):
            pooled = await pool.acquire(timeout=self._acquire_secs())
        try:
            yield pooled  # type: ignore[misc]
        finally:
            with suppress(Exception):  # the pool discards a broken connection
                await pool.release(pooled)

    def _acquire_secs(self) -> float:
        hosts = max(len(self.url.hosts), 1)
        return self.settings.connect_timeout_secs * hosts + self.settings.query_timeout_secs

    async def _pooled(self) -> Pool[Any]:
        if self._pool is None:
            import asyncpg

            most = self.settings.max_connections - 1  # one more connection listens
            self._pool = asyncpg.create_pool(
                min_size=min(max(self.settings.min_connections - 1, 0), most),
                max_size=most,
                max_inactive_connection_lifetime=0,  # kept connections stay open
                connect=self._connect,
            )
            self._opening = asyncio.ensure_future(_opened(self._pool))
        pool = self._pool
        try:
            await asyncio.shield(self._opening)
        except BaseException:
            if self._pool is pool and self._opening.done():
                self._pool = None  # a pool that failed to open cannot be opened again
            raise
        return pool

    async def _connect(self, *_of_pool: object, **_more: object) -> PostgresConnection:
        return await connect(self.settings)

    async def _expire(self) -> None:
        if self._pool is not None:
            await self._pool.expire_connections()

    # -- listening --------------------------------------------------------------------

    async def _listen(self) -> None:
        pause_secs = FIRST_PAUSE_SECS
        while True:
            try:
                connection = await connect(self.settings)
                try:
                    pause_secs = FIRST_PAUSE_SECS
                    await self._listen_on(connection)
                finally:
                    connection.terminate()
                self.down = PostgresError(
                    self.url, f"{UNREACHABLE}: it has ended the connection", is_lost=True
                )
            except StoreError as fault:
                self.down = fault
            except Exception:  # noqa: BLE001 — listening goes on
                log.bug("listening_failed")
            await self._expire()
            await asyncio.sleep(pause_secs * random.uniform(0.5, 1.0))  # noqa: S311
            pause_secs = min(pause_secs * 2, LONGEST_PAUSE_SECS)

    async def _listen_on(self, connection: PostgresConnection) -> None:
        """Listen until the connection is lost, or the server becomes a primary or a standby."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        follows = await is_standby(connection, self.settings)
        if not follows:  # a standby sends no notifications
            async with naming_faults(self.settings):
                await connection.add_listener(CHANNEL, self._heard)
        await self._pooled()
        self.down = None
        self._tell(is_change=False)
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECS):
                    await lost.wait()
                return
            if await is_standby(connection, self.settings) != follows:
                return
            if follows and len(self.url.hosts) > 1:
                await self._look_for_primary()

    async def _look_for_primary(self) -> None:
        """Raise PostgresError if another host takes edits, so that the caller reconnects."""
        other = await connect(self.settings)
        try:
            follows = await is_standby(other, self.settings)
        finally:
            other.terminate()
        if not follows:
            raise PostgresError(self.url, "has another primary now", is_lost=True)

    def _heard(self, *_notice: object) -> None:
        self._tell(is_change=True)

    def _tell(self, *, is_change: bool) -> None:
        if self._noticed is not None:
            self._noticed(is_change)


def _terminate(connection: PostgresConnection) -> None:
    """End a connection of the pool; the pool may have taken it back when the server ended it."""
    import asyncpg

    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _opened(pool: Pool[Any]) -> None:
    # edgeProxy reports connections that fail, in its own form.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
    await pool


class _Unbegun(Exception):  # noqa: N818 — a way out, no error
    """Nothing has happened yet, so the work may be repeated."""

    def __init__(self, fault: PostgresError) -> None:
        super().__init__(fault)
        self.fault = fault


def _limits(secs: float) -> str:
    lock_secs = min(secs / 2, LOCK_WAIT_SECS)  # ends before the query timeout, and names the cause
    return (
        f"SET LOCAL statement_timeout = {secs * 1000:.0f}; "
        f"SET LOCAL idle_in_transaction_session_timeout = {secs * 1000:.0f}; "
        f"SET LOCAL lock_timeout = {lock_secs * 1000:.0f}"
    )
