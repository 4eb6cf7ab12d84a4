"""What a proxy does besides serving clients: follows database and files, probes, answers.

One event loop on the main thread, which no client waits for. Every followed thing is checked on a
thread of its own (`control/follower.py`), so that one that hangs holds up neither another nor the
end. Nothing that is found in files or databases ends the proxy.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.config.load import FILE_VARIABLE, Config
from edgeproxy.control.follower import CollectorPause, Follower
from edgeproxy.control.geoip import Geo
from edgeproxy.control.health.health_checks import HealthChecks
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.process.endpoints import Endpoints
from edgeproxy.process.publisher import Publisher
from edgeproxy.process.reload import InForce, Reload
from edgeproxy.store.feed import Feed

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.cluster.supervisor import Supervisor
    from edgeproxy.store.feed import Store

TICK_SECS = 1.0
END_WAIT_SECS = 2.0
"""How long the end waits for the checks that still run, all together."""


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
    """The control plane of one proxy.

    Attributes:
        has_ended: Whether no check runs any more that may use the database; after `close`.
    """

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
        self._publisher = publisher
        self._reload = reload
        self._endpoints = endpoints
        self._probes = probes
        self._supervisor = _supervisor_of(in_force.config)
        agent = () if self._supervisor is None else (self._supervisor.run,)
        self._background = (self._tick, self._follow_config_file, *agent, *background)
        self._pause = CollectorPause()
        self._database = Follower(
            "database", feed.poll, self._pause, self._follow_table_soon, feed.note_hang
        )
        config = in_force.config
        self._polled = list(self._things(config, geo, listeners))
        self._followers = list(self._polled)  # with those that are not polled
        database = config.postgres if config.postgres.enabled else config.database
        self._poll_secs = database.reload_secs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._is_stopping = False
        self.has_ended = True

    def reload_soon(self) -> None:
        """Read the configuration, the database and all files soon. Loop only."""
        self._reload.ask()
        self.poll_soon()

    def poll_soon(self) -> None:
        """Read the database and all files that have changed soon. Loop only."""
        if self._woken is not None:
            self._woken.set()

    def cluster(self) -> Mapping[str, Any] | None:
        """Return what the agent said of the cluster last; None without replication."""
        return None if self._supervisor is None else self._supervisor.state()

    async def serve(self, stopping: asyncio.Event) -> None:
        """Run the control plane until asked to stop."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        tasks = [asyncio.ensure_future(each()) for each in self._background]
        # The API reads the database before it serves, which may take long.
        opening = asyncio.ensure_future(self._endpoints.serve())
        # What the servers have imported is here to stay: it is not walked again.
        opening.add_done_callback(lambda _: gc.freeze())
        asked = asyncio.ensure_future(stopping.wait())
        self._follow_table()
        while not stopping.is_set():
            woken = asyncio.ensure_future(self._woken.wait())
            awaited = {woken, asked} if opening.done() else {woken, asked, opening}
            await asyncio.wait(
                awaited, timeout=self._poll_secs, return_when=asyncio.FIRST_COMPLETED
            )
            if opening.done():
                opening.result()
            woken.cancel()
            was_woken = self._woken.is_set()
            self._woken.clear()
            for each in self._polled if not stopping.is_set() else ():
                if was_woken or not each.is_busy:
                    each.ask()
        self._is_stopping = True
        for task in (*tasks, opening):
            task.cancel()
        self._endpoints.begin_drain()
        self._probes.stop()

    async def close(self) -> None:
        """Stop answering, and interrupt the work on the database."""
        import asyncio

        self._store.interrupt()  # a database that hangs is not waited for
        await self._endpoints.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + END_WAIT_SECS
        ended = [each.end(deadline - loop.time()) for each in self._followers]
        self.has_ended = all(ended)

    async def follow_database(self) -> None:
        """Poll the database; what it holds is published when this returns."""
        import asyncio

        # Others may wait for the same check: who gives up must not cancel it for them.
        await asyncio.shield(asyncio.wrap_future(self._database.ask()))
        self._follow_table()

    async def _follow_config_file(self) -> None:
        """Read the configuration again when its file changes, if that is asked for."""
        watch = self._in_force.config.config_watch
        path = os.environ.get(FILE_VARIABLE)
        if not watch.enabled or not path:
            return
        from edgeproxy.control.file_watch import WatchedFile, touches

        file, loop = WatchedFile(Path(path)), self._loop
        assert loop is not None

        def check() -> None:
            if file.has_changed():
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self.reload_soon)

        follower = Follower("configuration_file", check, self._pause)
        self._followers.append(follower)
        async for _ in touches(Path(path), watch.interval_secs):
            if not follower.is_waiting:
                follower.ask()

    async def _tick(self) -> None:
        """Have what hangs reported."""
        import asyncio

        while True:
            await asyncio.sleep(TICK_SECS)
            for each in self._followers:
                each.tick()

    def _things(self, config: Config, geo: Geo, listeners: Listeners) -> Iterator[Follower]:
        """Yield what checks each thing that is followed."""
        pause = self._pause
        yield Follower("configuration", self._reload.check, pause, self._follow_table_soon)
        yield self._database
        yield Follower("geo_database", geo.reload_database, pause)
        if config.geo.overrides is not None:
            yield Follower("geo_overrides", geo.reload_overrides, pause)
        yield Follower("certificates", listeners.refresh_certificates, pause)
        if config.listeners.backend_tls_ca is not None:
            yield Follower("authorities", listeners.refresh_authorities, pause)
        yield Follower("listeners", listeners.retry, pause)
        follow_own = self._publisher.follow_own
        yield Follower("own_addresses", follow_own, pause, self._follow_table_soon)
        if config.api.enabled and config.api.token_file is not None:
            yield Follower("api_token", self._endpoints.refresh, pause)

    def _follow_table_soon(self) -> None:
        """Let the probes follow the table in force; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._follow_table)

    def _follow_table(self) -> None:
        """Let the probes follow the table in force."""
        if self._is_stopping:
            return
        config, overlays = self._in_force.config, self._in_force.loaded.overlays
        self._probes.follow(self._publisher.backends, config.probe, config.health, overlays)


def _supervisor_of(config: Config) -> Supervisor | None:
    """Return what keeps the agent running; None without replication."""
    if not config.replication.enabled:
        return None
    from edgeproxy.cluster.supervisor import Supervisor

    return Supervisor(config.replication.db_path)
