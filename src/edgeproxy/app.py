"""The composition root: builds every part, starts and stops them in order.

Nothing else knows all parts. Start: settings → geo → first routing table → listener →
ready line. The engine's threads serve clients from then on; this thread runs the control
plane on asyncio, which is imported only now, so that nobody waits for it.

Stop, on SIGTERM or SIGINT: no new clients → wait for the open ones, up to the shutdown
timeout → close the rest. A second signal ends the waiting at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy import log as events
from edgeproxy.config import FILE_VARIABLE, Loaded
from edgeproxy.control.access import OFF, AccessLog
from edgeproxy.control.geo import Geo
from edgeproxy.core.admission import Admission
from edgeproxy.core.entrance import Entrance
from edgeproxy.core.model import Backend, Circuit
from edgeproxy.core.overlay import overlaid
from edgeproxy.engine.choice import make_engine
from edgeproxy.engine.gate import AdmissionGate
from edgeproxy.engine.listener import open_listener
from edgeproxy.errors import ConfigError, EdgeProxyError
from edgeproxy.live_config import reload
from edgeproxy.metrics import Metrics
from edgeproxy.observation import Observation
from edgeproxy.store.feed import Feed
from edgeproxy.store.sqlite import SqliteStore
from edgeproxy.value import ListenAddress
from edgeproxy.version import VERSION

if TYPE_CHECKING:
    import asyncio
    import socket

    from edgeproxy.control.page import Pages
    from edgeproxy.control.prober import Prober
    from edgeproxy.core.health import ProbeSettings

log = events.EventLog("app")

LISTENER = "default"
SWITCH_INTERVAL_SECS = 0.0005
"""How long the control plane may keep the interpreter while the gate waits for it."""
DRAIN_LOOK_SECS = 0.05
LAG_LOOK_SECS = 1.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Proxy:
    """One running proxy. `run` does everything and returns the exit code."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._config = config = loaded.config
        self.metrics = Metrics()
        self._geo = Geo(config.geo)
        self.admission = Admission(
            config.admission,
            config.affinity,
            config.ejection,
            self._geo.locate,
            dial_timeout_secs=config.engine.connect_timeout_secs,
            entrance=Entrance(config.entrance, config.rate),
            breaker=config.breaker,
            health=config.health,
            circuit_changed=_circuit_changed,
        )
        self._store = SqliteStore(config.database.path, os.sched_yield)
        self._feed = Feed(self._store, self._publish, self.metrics)
        target = config.proxy.access_log
        self._access_log = None if target == OFF else AccessLog(target)
        gate = AdmissionGate(
            self.admission,
            self.metrics,
            {LISTENER: config.admission.app},
            config.engine.connect_timeout_secs,
            self._access_log.take if self._access_log else None,
        )
        self.engine = make_engine(config.engine, gate, self._crashed)
        self._observation = Observation(config, self.admission, self.metrics, self.engine)
        self._rows: tuple[Backend, ...] = ()
        self._backends: tuple[Backend, ...] = ()
        self._pages: list[Pages] = []
        self._page_socket: socket.socket | None = None
        self._console_socket: socket.socket | None = None
        self._prober: Prober | None = None
        self._signals = 0
        self._look_at_once = False
        self._reads_config = False
        self._look: Callable[[], object] = lambda: None
        self._exit_code = 0
        self._wake: Callable[[], object] = lambda: None

    def run(self) -> int:
        """Serve until a signal asks to stop. Raises EdgeProxyError if it cannot start."""
        for warning in self._loaded.warnings:
            log.warning("configuration", warning=warning)
        for number in STOP_SIGNALS:
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGHUP, self._hung_up)
        log.info("geo", **self._geo.description)
        sys.setswitchinterval(SWITCH_INTERVAL_SECS)
        _raise_descriptor_limit()
        try:
            if self._store.ensure():
                log.info("database_created", path=self._config.database.path)
            self._feed.first()
            self._listen()
            self._control()
        finally:
            self.engine.stop()
            self._store.close()
            if self._access_log is not None:
                self._access_log.close()
        return self._exit_code

    def _publish(self, rows: tuple[Backend, ...]) -> None:
        self._rows = rows
        backends = overlaid(rows, self._loaded.overlays)
        self.admission.publish(backends, rest=os.sched_yield)
        self._backends = backends
        self._observation.published_at = time.monotonic()

    def _listen(self) -> None:
        if self._config.proxy.control_socket is not None:
            from edgeproxy.control.unix_socket import open_socket

            self._console_socket = open_socket(self._config.proxy.control_socket)
        if self._config.metrics.enabled:
            self._page_socket = _open(self._config.metrics.listen, "EDGEPROXY_METRICS_LISTEN_ADDR")
        listening = _open(self._config.proxy.listen, "EDGEPROXY_LISTEN_ADDR")
        address = listening.getsockname()
        if self._config.engine.kind == "auto" and self.engine.kind == "portable":
            log.info(
                "native_engine_missing",
                hint="it is built when the package is installed where there is a C compiler",
            )
        self.engine.listen(LISTENER, listening)
        self.engine.start()
        log.info(
            "ready",
            listen=str(ListenAddress(address[0], address[1])),
            region=self._config.admission.region,
            engine=self.engine.kind,
            backends=len(self._backends),
            app=self._config.admission.app or "*",
            db=self._config.database.path,
            pid=os.getpid(),
            version=VERSION,
        )

    def _control(self) -> None:
        import asyncio

        asyncio.run(self._serve(woken=asyncio.Event(), stopping=asyncio.Event()))

    async def _serve(self, woken: asyncio.Event, stopping: asyncio.Event) -> None:
        """Follow the database and the geo files until asked to stop, then drain."""
        import asyncio

        loop = asyncio.get_running_loop()

        def wake() -> None:
            stopping.set()
            woken.set()

        self._wake = lambda: loop.call_soon_threadsafe(wake)
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up, signal.SIGHUP, None)
        self._look = woken.set
        if self._look_at_once:
            woken.set()
        watching = asyncio.ensure_future(self._watch_config())
        self._probe()
        await self._serve_pages()
        while not self._signals:
            try:
                async with asyncio.timeout(self._config.database.reload_secs):
                    await woken.wait()
                woken.clear()
            except TimeoutError:
                pass
            if not self._signals:
                looking = asyncio.ensure_future(asyncio.to_thread(self._follow))
                asked = asyncio.ensure_future(stopping.wait())
                await asyncio.wait((looking, asked), return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
            self._probe()
        watching.cancel()
        if self._prober is not None:
            self._prober.stop()
        await self._drain()
        for pages in self._pages:
            await pages.close()

    async def _watch_config(self) -> None:
        """Follow the configuration file, if that is asked for."""
        path = os.environ.get(FILE_VARIABLE)
        if not self._config.watch.enabled or not path:
            return
        from edgeproxy.control.config_watch import changes

        async for _ in changes(Path(path), self._config.watch.interval_secs):
            self._reads_config = True
            self._look()

    def _reload(self) -> bool:
        """Read the configuration again if somebody said so; put into force what can be."""
        if not self._reads_config:
            return False
        self._reads_config = False
        before = self._loaded
        try:
            self._loaded, config, changed = reload(before, self._config)
        except ConfigError as error:
            log.warning("config_bad", reason=error)
            return False
        self._config = config
        if not changed:
            return False
        self.engine.call(lambda: self.admission.entrance.change(config.entrance, config.rate))
        self.engine.call(lambda: self.admission.change(config.breaker, config.health))
        events.set_debug(config.log.debug)
        if before.overlays != self._loaded.overlays:
            self._publish(self._rows)
        return True

    def _probe(self) -> None:
        """Let the probes follow the table, if there are any."""
        if self._prober is None:
            if not self._config.probe.enabled:
                return
            from edgeproxy.control.prober import Prober

            prober = self._prober = Prober(self._judged, self._check_of)
            self._observation.verdicts = lambda: dict(prober.verdicts)
        self._prober.use(self._config.probe, self._config.health, self._loaded.overlays)
        self._prober.follow(self._backends)

    def _check_of(self, backend: Backend, settings: ProbeSettings) -> ProbeSettings:
        """Return how one backend is probed."""
        said = self._loaded.overlays.get(backend.id)
        return settings if said is None else settings.over(said.check_type, said.check_path)

    async def _serve_pages(self) -> None:
        """Serve metrics and the control socket, if they are asked for."""
        import asyncio

        if self._access_log is not None:
            access_log = self._access_log
            self._observation.access_lines_dropped = lambda: access_log.dropped
        if self._page_socket is not None or self._console_socket is not None:
            self._lag = asyncio.ensure_future(self._watch_lag())
        if self._console_socket is not None:
            from edgeproxy.control.console import console

            await self._serve_on(self._console_socket, console(self._observation))
        if self._page_socket is not None:
            from edgeproxy.control.exposition import metrics_page

            path = self._config.metrics.path
            pages = metrics_page(self._observation.read, path)
            address = ListenAddress(*self._page_socket.getsockname()[:2])
            await self._serve_on(self._page_socket, pages)
            log.info("metrics", listen=str(address), path=path)

    async def _serve_on(self, listening: socket.socket, pages: Pages) -> None:
        self._pages.append(pages)
        await pages.serve(listening)

    async def _watch_lag(self) -> None:
        """See how late timers are: what else runs in this loop holds them up."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_LOOK_SECS
            await asyncio.sleep(LAG_LOOK_SECS)
            self._observation.loop_lag_secs = max(loop.time() - due, 0.0)

    def _judged(self, backend_id: str, up: bool) -> None:
        self.engine.call(lambda: self.admission.judge(backend_id, up, time.monotonic()))

    def _follow(self) -> None:
        """Look at the database and the geo files. Nothing that is found in them ends the proxy.

        The garbage collector, which stops all threads while it walks a large new table, is
        kept away from it: a table frees itself when it is replaced.
        """
        for look in (self._reload, self._feed.poll, self._geo.reload):
            gc.disable()
            try:
                if look():
                    gc.freeze()
            except Exception:  # noqa: BLE001
                log.bug("look_failed")
            finally:
                gc.enable()

    async def _drain(self) -> None:
        import asyncio

        timeout_secs = self._config.proxy.shutdown_timeout_secs
        if self._exit_code:
            return
        self.engine.stop_accepting()
        log.info("draining", connections=self.engine.live(), timeout_secs=timeout_secs)
        asked = self._signals
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_secs
        while self.engine.live() and loop.time() < deadline and self._signals == asked:
            await asyncio.sleep(min(DRAIN_LOOK_SECS, max(deadline - loop.time(), 0)))
        cut = self.engine.live()
        self.engine.stop()
        metrics = self.metrics
        log.info(
            "stopped",
            cut=cut,
            accepted=metrics.accepted,
            closed=metrics.closed.total(),
            refused=metrics.refused.total(),
            failovers=metrics.failovers,
            bytes_in=metrics.bytes_in,
            bytes_out=metrics.bytes_out,
            still_active=sum(self.admission.load.active().values()),
        )

    def _signalled(self, number: int, _frame: object) -> None:
        self._signals += 1
        log.info("signal", name=signal.Signals(number).name, times=self._signals)
        self._wake()

    def _hung_up(self, _number: int, _frame: object) -> None:
        """SIGHUP: look at everything that can be read again, now or as soon as that is possible."""
        self._look_at_once = self._reads_config = True
        self._look()

    def _crashed(self, error: BaseException) -> None:
        log.error("engine_failed", error=repr(error))
        self._exit_code = 1
        self._signals += 1
        self._wake()


def _open(wanted: ListenAddress, variable: str) -> socket.socket:
    """Return a listening socket. Raises EdgeProxyError, which names the variable."""
    try:
        return open_listener(wanted.host, wanted.port)
    except OSError as error:
        raise EdgeProxyError(
            f"cannot listen on {wanted}: {error.strerror}; choose another address with {variable}"
        ) from None


def _circuit_changed(backend_id: str, circuit: Circuit) -> None:
    """Say that a breaker has another state."""
    tell = log.warning if circuit is Circuit.OPEN else log.info
    tell("circuit", backend=backend_id, state=circuit)


def _raise_descriptor_limit() -> None:
    """Use as many descriptors as this process may have; each connection takes two."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.debug("descriptor_limit", soft=soft, hard=hard)


def serve(loaded: Loaded) -> int:
    """Run a proxy with this configuration. Returns the exit code; raises EdgeProxyError."""
    events.start(loaded.config.log)
    try:
        return Proxy(loaded).run()
    finally:
        events.stop()
