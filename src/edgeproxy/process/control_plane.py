"""What a proxy does besides serving clients: follows database and files, probes, answers.

One event loop on the main thread, which no client waits for. What takes long runs in a thread of
its own, one step at a time. Nothing that is found in files or databases ends the proxy.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import log as events
from edgeproxy.config.load import FILE_VARIABLE
from edgeproxy.control.geoip import Geo
from edgeproxy.control.health.health_checks import HealthChecks
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.process.endpoints import Endpoints
from edgeproxy.process.publisher import Publisher
from edgeproxy.process.reload import InForce, Reload
from edgeproxy.store.feed import Feed

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from edgeproxy.store.feed import Store

log = events.EventLog("app")


class LoopCalls:
    """Runs functions on the control plane's loop, from any thread and signal handler.

    A function that comes before the loop begins runs when it does, once; one that comes after
    its end does not run.
    """

    def __init__(self) -> None:
        self._early: dict[Callable[[], object], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this loop from now on."""
        self._loop = loop
        for function in list(self._early):
            loop.call_soon(function)

    def soon(self, function: Callable[[], object]) -> None:
        """Run this function soon."""
        if self._loop is None:
            self._early[function] = None
        # Asked again: the loop may have begun meanwhile, and not have seen the function.
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function)


class ControlPlane:
    """The control plane of one proxy."""

    def __init__(
        self,
        in_force: InForce,
        store: Store,
        feed: Feed,
        publisher: Publisher,
        reload: Reload,
        geo: Geo,
        listeners: Listeners,
        endpoints: Endpoints,
        probes: HealthChecks,
        background: Sequence[Callable[[], Awaitable[None]]],
    ) -> None:
        """`background` is what else runs for as long as the proxy serves."""
        self._in_force = in_force
        self._store = store
        self._feed = feed
        self._publisher = publisher
        self._reload = reload
        self._endpoints = endpoints
        self._probes = probes
        self._background = (self._follow_config_file, *background)
        self._steps = (
            reload.check,
            feed.poll,
            geo.reload,
            listeners.refresh,
            endpoints.refresh,
        )
        config = in_force.config
        database = config.postgres if config.postgres.enabled else config.database
        self._poll_secs = database.reload_secs
        self._woken: asyncio.Event | None = None
        self._poller: ThreadPoolExecutor | None = None

    def reload_soon(self) -> None:
        """Read the configuration, the database and all files soon. Loop only."""
        self._reload.ask()
        self.poll_soon()

    def poll_soon(self) -> None:
        """Read the database and all files that have changed soon. Loop only."""
        if self._woken is not None:
            self._woken.set()

    async def serve(self, stopping: asyncio.Event) -> None:
        """Run the control plane until asked to stop."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        # Not the loop's own threads: rendering pages without end can keep all of them busy.
        self._poller = ThreadPoolExecutor(1, "poll")
        self._woken = asyncio.Event()
        tasks = [asyncio.ensure_future(each()) for each in self._background]
        await self._endpoints.serve()
        gc.freeze()  # what the servers have imported is here to stay: it is not walked again
        asked = asyncio.ensure_future(stopping.wait())
        self._follow_table()
        while not stopping.is_set():
            woken = asyncio.ensure_future(self._woken.wait())
            await asyncio.wait(
                (woken, asked), timeout=self._poll_secs, return_when=asyncio.FIRST_COMPLETED
            )
            woken.cancel()
            self._woken.clear()
            if not stopping.is_set():
                polling = loop.run_in_executor(self._poller, self._run_steps, self._steps)
                await asyncio.wait((polling, asked), return_when=asyncio.FIRST_COMPLETED)
            self._follow_table()
        for task in tasks:
            task.cancel()
        self._endpoints.begin_drain()
        self._probes.stop()

    async def close(self) -> None:
        """Stop answering, and interrupt the work on the database."""
        self._store.interrupt()  # a database that hangs is not waited for
        await self._endpoints.close()
        if self._poller is not None:
            self._poller.shutdown()  # the database is closed after this

    async def follow_database(self) -> None:
        """Poll the database; what it holds is published when this returns."""
        import asyncio

        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._poller, self._run_steps, (self._feed.poll,))
        self._follow_table()

    async def _follow_config_file(self) -> None:
        """Read the configuration again when its file changes, if that is asked for."""
        watch = self._in_force.config.config_watch
        path = os.environ.get(FILE_VARIABLE)
        if not watch.enabled or not path:
            return
        from edgeproxy.control.file_watch import changes

        async for _ in changes(Path(path), watch.interval_secs):
            self.reload_soon()

    def _follow_table(self) -> None:
        """Let the probes follow the table in force."""
        config, overlays = self._in_force.config, self._in_force.loaded.overlays
        self._probes.follow(self._publisher.backends, config.probe, config.health, overlays)

    def _run_steps(self, steps: Sequence[Callable[[], object]]) -> None:
        """Run some steps in order. Nothing that they find or raise ends the proxy.

        The garbage collector stops all threads while it walks a large new table, so it is off
        meanwhile: a table frees itself when it is replaced. Older garbage is collected by
        the feed before it reads, while there is little to walk: frozen garbage is never collected.
        """
        for step in steps:
            gc.disable()
            try:
                if step():
                    gc.freeze()
            except Exception:  # noqa: BLE001
                log.bug("look_failed")
            finally:
                gc.enable()
