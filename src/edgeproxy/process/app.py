"""The composition root: builds every part, starts and stops them in order.

Nothing else knows all parts. Start: settings → geo → first routing table → listener →
ready line. The engine's threads serve clients from then on; this thread runs the control
plane on asyncio, which is imported only now, so that nobody waits for it.

Stop, on SIGTERM or SIGINT: no new clients → wait for the open ones, up to the shutdown
timeout → close the rest. A second signal ends the waiting at once; after an upgrade, which is
followed by the same, a first signal asks for what is being done already.

Signals are heard from the first moment to the last, also when there is no loop yet or no more:
one that comes late must not turn an orderly end into a death by signal.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy import log as events
from edgeproxy.api.settings import token_of
from edgeproxy.config.load import Loaded
from edgeproxy.control.admin.unix_socket import open_socket
from edgeproxy.control.geoip import Geo
from edgeproxy.control.observe.access_log import OFF, AccessLog
from edgeproxy.core.admission.access import AccessControl
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Circuit
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.choice import make_engine
from edgeproxy.engine.descriptors import raise_limit
from edgeproxy.engine.sockets import open_listener
from edgeproxy.errors import EdgeProxyError
from edgeproxy.gate.gate import AdmissionGate
from edgeproxy.gate.preamble import PreambleParser
from edgeproxy.gate.proxy_header import ProxyHeaderWriter
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.listeners.listeners import Listeners, backend_authorities, mode_of, needs_tls
from edgeproxy.process import handover as upgrade
from edgeproxy.process import systemd
from edgeproxy.process.control_plane import ControlPlane
from edgeproxy.process.first_table import publish_first
from edgeproxy.process.lifecycle import Event, Lifecycle, Phase
from edgeproxy.store.choice import make_store
from edgeproxy.values import ListenAddress
from edgeproxy.version import VERSION

if TYPE_CHECKING:
    import asyncio
    import socket


log = events.EventLog("app")

API = "api"
METRICS = "metrics"
CONSOLE = "console"
SWITCH_INTERVAL_SECS = 0.0005
"""How long the control plane may keep the interpreter while the gate waits for it."""
DRAIN_LOOK_SECS = 0.05
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HEARD_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2)


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
            access=AccessControl(config.entrance, config.rate),
            breaker=config.breaker,
            health=config.health,
            circuit_changed=_circuit_changed,
            keeps_details=config.proxy.access_log != OFF,
        )
        makes, wake = not upgrade.has_predecessor(), self._database_changed
        sources = config.database, config.postgres
        self._store = make_store(*sources, os.sched_yield, wake, makes=makes)
        target = config.proxy.access_log
        self._access_log = None if target == OFF else AccessLog(target)
        self._warm_pool = WarmPool(config.pool, self.metrics) if config.pool.enabled else None
        preamble_parser = PreambleParser({}, config.door.proxy_in)
        gate = AdmissionGate(
            self.admission,
            self.metrics,
            preamble_parser,
            config.engine.connect_timeout_secs,
            self._access_log.take if self._access_log else None,
            self._warm_pool,
            ProxyHeaderWriter(config.door.proxy_out, os.urandom(4).hex()),
            dict(config.door.backend_tls),
        )
        authorities, trusted = backend_authorities(config)
        tls, settings = trusted is not None, replace(config.engine, backend_ca_pem=trusted)
        self.engine = make_engine(settings, gate, self._crashed, with_tls=tls or needs_tls(config))
        self.doors = Listeners(config, self.engine, preamble_parser, authorities)
        self.plane = ControlPlane(
            loaded, self.admission, self.engine, self._geo, self._store, self.metrics, self.doors
        )
        if (access_log := self._access_log) is not None:
            self.plane.status.access_lines_dropped = lambda: access_log.dropped
        if self._warm_pool is not None:
            self.plane.status.pool_waiting = self._warm_pool.waiting
        self._lifecycle = Lifecycle()
        self._is_upgrade_due = False  # asked for before there was a loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], object] = lambda: None

    def run(self) -> int:
        """Serve until a signal asks to stop. Raises EdgeProxyError if it cannot start."""
        for warning in self._loaded.warnings:
            log.warning("configuration", warning=warning)
        for number in STOP_SIGNALS:
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGHUP, self._hung_up)
        signal.signal(signal.SIGUSR2, self._asked_to_upgrade)
        log.info("geo", **self._geo.description)
        sys.setswitchinterval(SWITCH_INTERVAL_SECS)
        raise_limit()
        try:
            self._wake = self._store.interrupt
            if not publish_first(
                self.plane.feed,
                self._store,
                lambda: self._lifecycle.is_stopping,
                may_come_back=self._config.postgres.enabled,
                is_successor=upgrade.has_predecessor(),
            ):
                return self._lifecycle.exit_code
            for backend_id in upgrade.handed_drains():
                self.admission.drain(backend_id, True)
            self._listen()
            self._control()
        finally:
            self.engine.stop()
            self._store.close()
            path = self._config.proxy.control_socket
            if path is not None and self.plane.console_socket and not self._lifecycle.has_successor:
                path.unlink(missing_ok=True)
            if self._access_log is not None:
                self._access_log.close()
        return self._lifecycle.exit_code

    def _listen(self) -> None:
        """Open all sockets, or take those that a predecessor or systemd has opened."""
        handed = upgrade.handed_sockets()
        path = self._config.proxy.control_socket
        if path is not None:
            self.plane.console_socket = handed.pop(CONSOLE, None) or open_socket(path)
        if self._config.metrics.enabled:
            self.plane.page_socket = handed.pop(METRICS, None) or _open(
                self._config.metrics.listen, "EDGEPROXY_METRICS_LISTEN_ADDR"
            )
        if self._config.api.enabled:
            token_of(self._config.api)  # what is wrong with it is said before anybody is served
            self.plane.api_socket = handed.pop(API, None) or _open(
                self._config.api.listen, "EDGEPROXY_API_LISTEN_ADDR"
            )
        listeners = self.doors.open(handed, systemd.given_sockets())
        if self._config.engine.kind == "auto" and self.engine.kind == "portable":
            log.info(
                "native_engine_missing",
                hint="it is built when the package is installed where there is a C compiler",
            )
        self.engine.start()
        for each in listeners[1:]:
            log.info("listener_opened", listen=each.address, mode=mode_of(each))
        log.info(
            "ready",
            listen=str(listeners[0].address),
            region=self._config.admission.region,
            engine=self.engine.kind,
            backends=len(self.plane.backends),
            app=self._config.admission.app or "*",
            db=self._store.path,
            pid=os.getpid(),
            version=VERSION,
        )
        systemd.notify("READY=1", f"STATUS=serving on {listeners[0].address}")
        upgrade.tell_predecessor()

    def _control(self) -> None:
        import asyncio

        asyncio.run(self._serve(asyncio.Event()))

    async def _serve(self, stopping: asyncio.Event) -> None:
        """Run the control plane until asked to stop, then drain."""
        import asyncio

        loop = self._loop = asyncio.get_running_loop()
        self._wake = lambda: self._soon(stopping.set)
        # A signal may come just before the loop waits, and would be heard only when it has
        # waited; its byte is there then. asyncio's own handlers end before the process does.
        heard, hearing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(heard, os.read, heard, 512)
        signal.set_wakeup_fd(hearing, warn_on_full_buffer=False)
        try:
            self.plane.upgrade = self._upgrade
            self._lifecycle.add(Event.READY)
            if self._is_upgrade_due:
                self._begin_to_upgrade()
            if self._lifecycle.is_stopping:
                stopping.set()
            await self.plane.serve(stopping)
            await self._drain()
            await self.plane.close()
        finally:
            signal.set_wakeup_fd(-1)
            loop.remove_reader(heard)
            os.close(hearing)
            os.close(heard)

    def _soon(self, function: Callable[[], object]) -> None:
        """Run this on the control plane's loop, unless that has ended; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(function)

    def _begin_to_upgrade(self) -> None:
        import asyncio

        self._upgrading = asyncio.ensure_future(self._try_to_upgrade())

    async def _try_to_upgrade(self) -> None:
        try:
            await self._upgrade()
        except EdgeProxyError:
            pass  # it has been told

    async def _upgrade(self) -> int:
        """Start a successor, then stop as on SIGTERM. Return its process id.

        Raises EdgeProxyError if there is none; then everything goes on as before.
        """
        try:
            return await self._hand_over()
        except EdgeProxyError as error:
            log.warning("upgrade_failed", reason=error)
            raise

    async def _hand_over(self) -> int:
        if self._lifecycle.is_stopping:
            raise EdgeProxyError("the proxy is being stopped already")
        if self._lifecycle.phase is Phase.UPGRADING:
            raise EdgeProxyError("the proxy is being upgraded already")
        sockets = self.doors.sockets()
        if self.plane.page_socket is not None:
            sockets[METRICS] = self.plane.page_socket
        if self.plane.api_socket is not None:
            sockets[API] = self.plane.api_socket
        if self.plane.console_socket is not None:
            sockets[CONSOLE] = self.plane.console_socket
        self._lifecycle.add(Event.UPGRADE_BEGUN)
        log.info("upgrading")
        try:
            drained = [each.backend_id for each in self.admission.load.all() if each.draining]
            pid = await upgrade.start_successor(sockets, drained)
        except BaseException:
            self._lifecycle.add(Event.UPGRADE_FAILED)
            raise
        self._lifecycle.add(Event.SUCCESSOR_READY)
        if not self._lifecycle.has_successor:  # a stop was asked for meanwhile: nothing stays
            os.kill(pid, signal.SIGTERM)
            raise EdgeProxyError("the proxy has been asked to stop")
        log.info("upgraded", successor=pid)
        systemd.notify(f"MAINPID={pid}")
        self.plane.stop_listening()
        self._wake()
        return pid

    async def _drain(self) -> None:
        import asyncio

        timeout_secs = self._config.proxy.shutdown_timeout_secs
        if self._lifecycle.has_crashed:
            return
        if not self._lifecycle.has_successor:
            systemd.notify("STOPPING=1")
        self.doors.close(has_successor=self._lifecycle.has_successor)
        self.engine.stop_accepting()
        if self._warm_pool is not None:
            self.engine.call(self._warm_pool.close)
        log.info("draining", connections=self.engine.live(), timeout_secs=timeout_secs)
        self._lifecycle.add(Event.DRAIN_BEGUN)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_secs
        spread_secs = min(self._config.proxy.drain_spread_secs, timeout_secs)
        to_spread = 0
        while self.engine.live() and self._lifecycle.is_draining:
            left_secs = deadline - loop.time()
            if left_secs <= 0:
                break
            if left_secs < spread_secs:
                to_spread = to_spread or self.engine.live()
                self._close_down_to(math.ceil(to_spread * left_secs / spread_secs))
            await asyncio.sleep(min(DRAIN_LOOK_SECS, left_secs))
        self._lifecycle.add(Event.DRAIN_ENDED)
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

    def _close_down_to(self, most: int) -> None:
        """Close open connections until there are no more than so many."""

        def close() -> None:
            # Counted where they end: one whose end is under way is not closed for again.
            too_many = max(self.engine.live() - most, 0)
            chosen = itertools.islice(itertools.repeat(True), too_many)
            self.engine.close_sessions(lambda _ticket: next(chosen, False))

        if self.engine.live() > most:
            self.engine.call(close)

    def _signalled(self, number: int, _frame: object) -> None:
        self._lifecycle.add(Event.STOP_SIGNAL)
        times = self._lifecycle.stop_requests
        log.info("signal", name=signal.Signals(number).name, times=times)
        self._wake()

    def _database_changed(self) -> None:
        """Look at it soon; on a thread of its store."""
        if self._loop is None:
            self.plane.look_soon()
        self._soon(self.plane.look_soon)

    def _hung_up(self, _number: int, _frame: object) -> None:
        if self._loop is None:
            self.plane.look_at_everything()
        self._soon(self.plane.look_at_everything)

    def _asked_to_upgrade(self, _number: int, _frame: object) -> None:
        self._is_upgrade_due = self._loop is None
        self._soon(self._begin_to_upgrade)

    def _crashed(self, error: BaseException) -> None:
        log.error("engine_failed", error=repr(error))
        self._lifecycle.add(Event.CRASH)
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


def serve(loaded: Loaded) -> int:
    """Run a proxy with this configuration. Returns the exit code; raises EdgeProxyError."""
    events.start(loaded.config.log)
    try:
        return Proxy(loaded).run()
    finally:
        events.stop()
        for number in HEARD_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # Python gives up its own before it ends
