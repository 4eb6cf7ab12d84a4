"""What a proxy does beside serving: it follows the database and the files, probes, answers.

One event loop on the main thread, which nobody who is served waits for. What takes long runs in
a thread, one such thing at a time. Nothing that is found in files or databases ends the proxy.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import log as events
from edgeproxy.config.load import FILE_VARIABLE, Loaded
from edgeproxy.control.geoip import Geo
from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.local_overrides import overlaid
from edgeproxy.engine.contract import Engine
from edgeproxy.errors import ConfigError, EdgeProxyError
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.process import systemd
from edgeproxy.process.reload import reload
from edgeproxy.store.feed import Feed
from edgeproxy.values import ListenAddress

if TYPE_CHECKING:
    import asyncio
    import socket
    from concurrent.futures import ThreadPoolExecutor

    from edgeproxy.api.api import Api
    from edgeproxy.control.admin.pages import HttpPages
    from edgeproxy.control.health.checker import Checker
    from edgeproxy.core.backends.health import ProbeSettings
    from edgeproxy.core.metrics import Metrics
    from edgeproxy.store.feed import Store

log = events.EventLog("app")

LAG_LOOK_SECS = 1.0


class ControlPlane:
    """The control plane of one proxy.

    Attributes:
        config: The settings in force.
        backends: Those of the table that was published last.
        store: Where they come from.
        page_socket, console_socket, api_socket: Where pages and the API are served, if they are;
            listening already.
        upgrade: Starts a successor and returns its process id.
    """

    def __init__(
        self,
        loaded: Loaded,
        admission: Admission,
        engine: Engine,
        geo: Geo,
        store: Store,
        metrics: Metrics,
        doors: Listeners,
    ) -> None:
        self.config = loaded.config
        self.backends: tuple[Backend, ...] = ()
        self.page_socket: socket.socket | None = None
        self.console_socket: socket.socket | None = None
        self.api_socket: socket.socket | None = None
        self.api: Api | None = None
        self.status = Status(loaded.config, admission, metrics, engine)
        self.feed = Feed(store, self._publish, metrics, gc.collect, doors.route)
        self.store = store
        self._doors = doors
        self.status.certificates = doors.certificates_state
        self._loaded = loaded
        self._admission = admission
        self._metrics = metrics
        self._engine = engine
        self._geo = geo
        self._rows: tuple[Backend, ...] = ()
        self._pages: list[HttpPages] = []
        self._checker: Checker | None = None
        self.upgrade: Callable[[], Awaitable[int]] = _no_successor
        self._reads_config = False
        self._woken: asyncio.Event | None = None
        self._looks_at_once = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: ThreadPoolExecutor | None = None
        postgres = loaded.config.postgres
        self._look_secs = (postgres if postgres.enabled else self.config.database).reload_secs
        self._leaving: list[set[str]] = []  # removals whose connections still have time

    def look_at_everything(self) -> None:
        """Look at the database and all files, now or as soon as there is a loop to do it."""
        self._reads_config = True
        self.look_soon()

    def look_soon(self) -> None:
        """Look at the database, now or as soon as there is a loop to do it."""
        self._looks_at_once = True
        if self._woken is not None:
            self._woken.set()

    async def serve(self, stopping: asyncio.Event) -> None:
        """Do all of it until asked to stop."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = self._loop = asyncio.get_running_loop()
        # Of its own: whoever asks for pages without end keeps the loop's threads busy.
        self._looking = ThreadPoolExecutor(1, "look")
        self._woken = asyncio.Event()
        if self._looks_at_once:
            self._woken.set()
        tasks = [asyncio.ensure_future(self._watch_config())]
        if self.page_socket is not None or self.console_socket is not None:
            tasks.append(asyncio.ensure_future(self._watch_lag()))
        if (secs := systemd.watchdog_secs()) > 0:
            tasks.append(asyncio.ensure_future(self._show_life(secs / 2)))
        await self._serve_pages()
        if self.api_socket is not None:
            from edgeproxy.api.api import start

            self.api = await start(self, self._admission, self._metrics, self.api_socket)
        asked = asyncio.ensure_future(stopping.wait())
        self._probe()
        while not stopping.is_set():
            woken = asyncio.ensure_future(self._woken.wait())
            await asyncio.wait(
                (woken, asked),
                timeout=self._look_secs,
                return_when=asyncio.FIRST_COMPLETED,
            )
            woken.cancel()
            self._woken.clear()
            if not stopping.is_set():
                looking = loop.run_in_executor(self._looking, self._look)
                await asyncio.wait((looking, asked), return_when=asyncio.FIRST_COMPLETED)
            self._probe()
        for task in tasks:
            task.cancel()
        if self.api is not None:
            self.api.stop()
        if self._checker is not None:
            self._checker.stop()

    def stop_listening(self) -> None:
        """Leave the sockets of pages to a successor."""
        for pages in self._pages:
            pages.stop_listening()
        if self.api is not None:
            self.api.server.stop_listening()

    async def close(self) -> None:
        """Answer nobody any more."""
        self.store.interrupt()  # nobody waits for a database that hangs
        for pages in self._pages:
            await pages.close()
        if self.api is not None:
            await self.api.close()
        if self._looking is not None:
            self._looking.shutdown()  # the database is closed after this

    async def follow_database(self) -> None:
        """Look at the database; what it holds is published when this returns."""
        assert self._loop is not None
        await self._loop.run_in_executor(self._looking, self._look, (self.feed.poll,))
        self._probe()

    def _publish(self, rows: tuple[Backend, ...]) -> None:
        self._rows = rows
        backends = overlaid(rows, self._loaded.overlays)
        self._admission.publish(backends, self._doors.scopes(), os.sched_yield)
        self._doors.lead()
        before, self.backends = self.backends, backends
        self._let_go(before)
        self.status.published_at = time.monotonic()

    def _let_go(self, before: tuple[Backend, ...]) -> None:
        """See to the connections of backends that are in the table no more."""
        kind, _, secs = self.config.proxy.on_remove.partition(":")
        if kind == "keep":
            return
        there = {each.id for each in self.backends if not each.deleted}
        gone = {each.id for each in before if not each.deleted} - there
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._part, there, gone, float(secs or 0))

    def _part(self, there: set[str], gone: set[str], secs: float) -> None:
        """Give the connections of backends that are gone so long; who is back keeps theirs."""
        for each in self._leaving:
            each.difference_update(there)
        if gone and self._loop is not None:
            self._leaving.append(gone)
            self._loop.call_later(secs, self._cut, gone)

    def _cut(self, gone: set[str]) -> None:
        """Close the connections of these backends, less those that have come back."""
        self._leaving.remove(gone)
        if not gone:
            return
        self._engine.close_sessions(lambda ticket: ticket.backend.id in gone)

    async def _watch_config(self) -> None:
        """Follow the configuration file, if that is asked for."""
        path = os.environ.get(FILE_VARIABLE)
        if not self.config.config_watch.enabled or not path:
            return
        from edgeproxy.control.file_watch import changes

        async for _ in changes(Path(path), self.config.config_watch.interval_secs):
            self._reads_config = True
            if self._woken is not None:
                self._woken.set()

    def _reload(self) -> bool:
        """Read the configuration again if somebody said so; put into force what can be."""
        if not self._reads_config:
            return False
        self._reads_config = False
        before = self._loaded
        try:
            read = reload(before, self.config)
        except ConfigError as error:
            log.warning("config_bad", reason=error)
            return False
        self._loaded = read.loaded
        self.config = config = read.config
        if not (read.variables or read.backends):
            return False
        self._engine.call(lambda: self._admission.access.change(config.access, config.rate_limit))
        self._engine.call(lambda: self._admission.change(config.circuit_breaker, config.health))
        events.set_debug(config.log.debug)
        scopes = self._doors.scopes()
        self._doors.expect(config)  # nobody is led to an app before its backends are known
        if before.overlays != self._loaded.overlays or scopes != self._doors.scopes():
            self._publish(self._rows)
        self._doors.change(config)
        self._engine.call(read.tell)  # who waits for that finds all of it in force
        return True

    def _probe(self) -> None:
        """Let the probes follow the table, if there are any."""
        if self._checker is None:
            if not self.config.probe.enabled:
                return
            from edgeproxy.control.health.checker import Checker

            checker = self._checker = Checker(self._judged, self._check_of)
            self.status.verdicts = lambda: dict(checker.verdicts)
        self._checker.use(self.config.probe, self.config.health, self._loaded.overlays)
        self._checker.follow(self.backends)

    def _check_of(self, backend: Backend, settings: ProbeSettings) -> ProbeSettings:
        """Return how one backend is probed."""
        said = self._loaded.overlays.get(backend.id)
        return settings if said is None else settings.over(said.check_type, said.check_path)

    async def _serve_pages(self) -> None:
        """Serve metrics and the control socket, if they are asked for."""
        if self.console_socket is not None:
            from edgeproxy.control.admin.control_socket import console

            await self._serve_on(self.console_socket, console(self.status, self.upgrade))
        if self.page_socket is not None:
            from edgeproxy.control.observe.metrics_page import metrics_page

            path = self.config.metrics.path
            pages = metrics_page(self.status.read, path)
            address = ListenAddress(*self.page_socket.getsockname()[:2])
            await self._serve_on(self.page_socket, pages)
            log.info("metrics", listen=str(address), path=path)

    async def _serve_on(self, listening: socket.socket, pages: HttpPages) -> None:
        self._pages.append(pages)
        await pages.serve(listening)

    async def _show_life(self, pause_secs: float) -> None:
        """Tell systemd now and then that this loop and the gate thread are alive."""
        import asyncio

        while True:
            await self.status.on_gate(int)
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(pause_secs)

    async def _watch_lag(self) -> None:
        """See how late timers are: what else runs in this loop holds them up."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_LOOK_SECS
            await asyncio.sleep(LAG_LOOK_SECS)
            self.status.loop_lag_secs = max(loop.time() - due, 0.0)

    def _judged(self, backend_id: str, up: bool) -> None:
        self._engine.call(lambda: self._admission.set_health(backend_id, up, time.monotonic()))

    def _look(self, looks: Iterable[Callable[[], object]] = ()) -> None:
        """Look at the database and the geo files. Nothing that is found in them ends the proxy.

        The garbage collector, which stops all threads while it walks a large new table, is
        kept away from it: a table frees itself when it is replaced. What it would have freed by
        then is collected before, while there is little to walk: what is frozen is never freed.
        """
        everything = [self._reload, self.feed.poll, self._geo.reload, self._doors.look]
        if self.api is not None:
            everything.append(self.api.look)
        for look in looks or everything:
            gc.disable()
            try:
                if look():
                    gc.freeze()
            except Exception:  # noqa: BLE001
                log.bug("look_failed")
            finally:
                gc.enable()


async def _no_successor() -> int:
    raise EdgeProxyError("there is nobody to do that")
