"""The composition root: builds every part, starts and stops them in order.

Only this module knows all parts. Start: settings → geo → first routing table → listeners →
ready line. The engine's threads serve clients from then on; this thread runs the control plane on
asyncio, which is imported only now, so that no client waits for the import.

Stop, on SIGTERM or SIGINT: the drain (`drain.py`); `lifecycle.py` says what a signal means when.

Signals are heard from the first moment to the last, also before and after the loop: a late signal
must not turn an orderly end into a death by signal.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeproxy import log as events
from edgeproxy.cluster.identity import home_of
from edgeproxy.config.load import Config, Loaded
from edgeproxy.control import children
from edgeproxy.control.admin.socket_path import OFF as NO_SOCKET
from edgeproxy.control.cpu_yield import CpuYield
from edgeproxy.control.geoip import Geo
from edgeproxy.control.health.health_checks import HealthChecks
from edgeproxy.control.health.opening import opening_by_app
from edgeproxy.control.observe.access_log import OFF, AccessLog
from edgeproxy.control.observe.backend_events import circuit_changed, drain_changed
from edgeproxy.control.observe.status import Status
from edgeproxy.control.start_watch import StartWatch
from edgeproxy.control.stray_output import StrayOutput
from edgeproxy.core.admission.access import AccessControl
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.loops import LoopGuard
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.choice import make_engine
from edgeproxy.engine.descriptors import ceiling, raise_limit
from edgeproxy.gate.gate import AdmissionGate
from edgeproxy.gate.preamble import PreambleParser
from edgeproxy.gate.proxy_header_writer import ProxyHeaderWriter
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.listeners.listeners import Listeners
from edgeproxy.listeners.own_addresses import OwnAddresses
from edgeproxy.process import handover, systemd
from edgeproxy.process.control_plane import ControlPlane, LoopCalls
from edgeproxy.process.drain import Drain
from edgeproxy.process.endpoints import Endpoints
from edgeproxy.process.first_table import publish_first, warn_without_backends
from edgeproxy.process.lifecycle import Event, Lifecycle
from edgeproxy.process.publisher import Publisher
from edgeproxy.process.reload import InForce, Reload
from edgeproxy.process.removal import Removal
from edgeproxy.process.watchdog import LoopLag, show_life
from edgeproxy.store.choice import make_store
from edgeproxy.version import VERSION

if TYPE_CHECKING:
    import asyncio
    import socket

    from edgeproxy.api.api import Api
    from edgeproxy.tls.authorities import Authorities
    from edgeproxy.values import Secret

log = events.EventLog("app")

SWITCH_INTERVAL_SECS = 0.00005
"""How long the control plane may keep the interpreter while the gate waits for it."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HEARD_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGUSR2)


class Proxy:
    """One running proxy. `run` does everything and returns the exit code."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._config = config = loaded.config
        in_force = InForce(loaded)
        self._lifecycle = Lifecycle()
        self._is_telling = False  # of a signal
        self._loop_calls = LoopCalls()
        self._stray_output = StrayOutput()
        self._wake: Callable[[], object] = lambda: None
        self.metrics = Metrics()
        self._geo = Geo(config.geo)
        self.admission = _admission(config, self._geo)
        self._store = make_store(
            config.database,
            config.postgres,
            CpuYield(),
            lambda: self._loop_calls.soon(self.control_plane.poll_soon),
            makes=not handover.has_predecessor(),
        )
        target = config.proxy.access_log
        self._access_log = access_log = (
            None if target == OFF else AccessLog(target, config.admission.region)
        )
        warm_pool = WarmPool(config.pool, self.metrics) if config.pool.enabled else None
        preamble_parser = PreambleParser(
            {}, self.admission.server_names, config.listeners.proxy_protocol_in
        )
        header_writer = ProxyHeaderWriter(config.listeners.proxy_protocol_out, os.urandom(4).hex())
        gate = AdmissionGate(
            self.admission,
            self.metrics,
            preamble_parser,
            config.engine.connect_timeout_secs,
            access_log.take if access_log else None,
            warm_pool,
            header_writer,
            dict(config.listeners.backend_tls),
            loops := LoopGuard(),
        )
        listen_settings = config.listen_settings()
        authorities, trusted = _backend_authorities(config)
        self.engine = make_engine(
            replace(config.engine, backend_ca_pem=trusted),
            gate,
            self._crashed,
            with_tls=trusted is not None or listen_settings.speaks_tls,
        )
        loops.watch(
            ceiling,
            self.engine.unanswered,
            self.engine.ends,
            lambda tickets: self.engine.close_sessions(tickets.__contains__),
        )
        self.listeners = Listeners(
            listen_settings, config.tls, self.engine, preamble_parser, authorities
        )
        own_addresses = OwnAddresses(
            lambda: self.listeners.by_description() | self._endpoints.by_description()
        )
        removal = Removal(
            self.engine, lambda: in_force.config.proxy.on_remove, self._loop_calls.soon
        )
        self.publisher = Publisher(
            self.admission,
            removal,
            lambda: in_force.loaded.overlays,
            lambda: in_force.config,
            own_addresses.look,
            self.metrics,
        )
        self.feed = self.publisher.feed(self._store, gc.collect)
        names, alpn = dict(config.listeners.backend_tls), config.tls.alpn
        trusted_now = (lambda: b"") if authorities is None else lambda: authorities.in_force
        opening = opening_by_app(header_writer.without_client, names, trusted_now, alpn)
        probes = HealthChecks(self._judged, opening)
        loop_lag = LoopLag()
        self._status = Status(
            config.admission.app,
            config.admission.region,
            self.admission,
            self.metrics,
            self.engine,
            published_at=lambda: self.publisher.published_at,
            loop_lag_secs=lambda: loop_lag.secs,
            verdicts=probes.verdicts,
            pool_waiting=warm_pool.waiting if warm_pool else dict,
            certificates=self.listeners.certificates_state,
            access_lines_dropped=(lambda: access_log.dropped) if access_log else int,
            surroundings=lambda: self._endpoints.surroundings(
                self.feed, self.listeners, self.control_plane.cluster()
            ),
        )
        self._upgrade = handover.Upgrade(
            self._lifecycle,
            lambda: self.listeners.sockets() | self._endpoints.sockets(),
            lambda: [each.backend_id for each in self.admission.load.all() if each.draining],
            self._handed_over,
        )
        self._endpoints = Endpoints(config, self._status, self._start_api, self._upgrade.run)
        background = [lambda: show_life(lambda: self._status.on_gate(int))]
        if config.metrics.enabled or config.proxy.control_socket != NO_SOCKET:
            background.append(loop_lag.measure)
        if os.getpid() == 1:
            background.append(children.reap_always)
        self.control_plane = ControlPlane(
            in_force,
            self._store,
            self.feed,
            self.publisher,
            Reload(in_force, self.engine, self.admission, self.listeners, self.publisher),
            self._geo,
            self.listeners,
            self._endpoints,
            probes,
            background,
        )
        self._drain = Drain(
            self._lifecycle,
            self.engine,
            self.listeners,
            warm_pool,
            self.metrics,
            self.admission.load.active,
            timeout_secs=config.proxy.shutdown_timeout_secs,
            spread_secs=config.proxy.drain_spread_secs,
        )

    def run(self) -> int:
        """Serve until a signal asks to stop. Raises EdgeProxyError if it cannot start."""
        for warning in self._loaded.warnings:
            log.warning("configuration", warning=warning)
        for number in STOP_SIGNALS:
            signal.signal(number, self._signalled)
        # Whoever started us may have ignored it, and exit codes of children would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, self._hung_up)
        signal.signal(signal.SIGUSR2, self._asked_to_upgrade)
        log.info("geo", **self._geo.description)
        self._stray_output.adopt()
        sys.setswitchinterval(SWITCH_INTERVAL_SECS)
        raise_limit()
        try:
            self._wake = self._store.interrupt
            with StartWatch(STOP_SIGNALS, self._endpoints.remove_files):
                if not publish_first(
                    self.feed,
                    self._store,
                    lambda: self._lifecycle.is_stopping,
                    may_come_back=self._config.postgres.enabled,
                    is_successor=handover.has_predecessor(),
                ):
                    return self._lifecycle.exit_code
                for backend_id in handover.handed_drains():
                    self.admission.drain(backend_id, True)
                self._listen()
            warn_without_backends(self._config, self._store.path, self.publisher.backends)
            self._control()
        finally:
            self.engine.stop()
            if self.control_plane.has_ended:  # closing would wait for a check that hangs
                self._store.close()
            if not self._lifecycle.has_successor:
                self._endpoints.remove_files()
            if self._access_log is not None:
                self._access_log.close()
        return self._lifecycle.exit_code

    def _listen(self) -> None:
        """Open all sockets, or take those that a predecessor or systemd has opened."""
        inherited = handover.handed_sockets()
        self._endpoints.open(inherited)
        opened = self.listeners.open(inherited, systemd.given_sockets())
        self.publisher.follow_own()
        if self._config.engine.kind == "auto" and self.engine.kind == "portable":
            log.info(
                "native_engine_missing",
                hint="install the package on a host with a C compiler to build it",
            )
        self.admission.access.arrivals.room = ceiling()
        self.engine.start()
        for each in opened[1:]:
            log.info("listener_opened", listen=each.address, mode=each.mode)
        log.info(
            "ready",
            listen=str(opened[0].address),
            region=self._config.admission.region,
            engine=self.engine.kind,
            backends=len(self.publisher.backends),
            app=self._config.admission.app or "*",
            db=self._store.path,
            pid=os.getpid(),
            version=VERSION,
        )
        systemd.notify("READY=1", f"STATUS=serving on {opened[0].address}")
        handover.tell_predecessor()

    def _control(self) -> None:
        import asyncio

        from edgeproxy.control.awake_loop import AwakeLoop

        with asyncio.Runner(loop_factory=AwakeLoop) as runner:
            runner.run(self._serve(asyncio.Event()))

    async def _serve(self, stopping: asyncio.Event) -> None:
        """Run the control plane until asked to stop, then drain."""
        import asyncio

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._stray_output.loop_fault)
        self._lifecycle.add(Event.READY)
        self._loop_calls.begin(loop)
        self._wake = lambda: self._loop_calls.soon(stopping.set)
        # A signal that comes just before the loop waits would be handled only after the wait; its
        # byte in this pipe ends the wait. asyncio's own handlers end before the process does.
        heard, hearing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(heard, os.read, heard, 512)
        signal.set_wakeup_fd(hearing, warn_on_full_buffer=False)
        try:
            if self._lifecycle.is_stopping:
                stopping.set()
            await self.control_plane.serve(stopping)
            await self._drain.run()
            await self.control_plane.close()
        finally:
            # The pipe is closed by the end of the process: a signal that another thread has just
            # got may still write to it.
            signal.set_wakeup_fd(-1)
            loop.remove_reader(heard)

    async def _start_api(self, listening: socket.socket, token: Secret) -> Api:
        from edgeproxy.api.api import start

        config = self._config
        return await start(
            replace(config.api, home=home_of(config.replication, config.api.home)),
            self._store,
            self.admission,
            self._status,
            self.metrics,
            self.control_plane.follow_database,
            lambda: self.publisher.backends,
            self.feed.why_skipped,
            lambda: self._lifecycle.is_stopping,
            lambda: self.publisher.own,
            self.engine.ends,
            listening,
            token,
        )

    def _handed_over(self) -> None:  # new connections are left to the successor
        self._endpoints.stop_listening()
        self._wake()

    def _judged(self, backend_id: str, up: bool) -> None:
        self.engine.call(lambda: self.admission.set_health(backend_id, up, time.monotonic()))

    def _signalled(self, number: int, _frame: object) -> None:
        self._lifecycle.add(Event.STOP_SIGNAL)
        if self._is_telling:  # it came while an earlier one was told of; nothing more follows
            return
        self._is_telling = True
        try:
            name, times = signal.Signals(number).name, self._lifecycle.stop_requests
            log.info("signal", name=name, times=times)
        finally:
            self._is_telling = False
        self._wake()

    def _hung_up(self, _number: int, _frame: object) -> None:
        self._loop_calls.soon(self.control_plane.reload_soon)

    def _asked_to_upgrade(self, _number: int, _frame: object) -> None:
        self._loop_calls.soon(self._upgrade.begin)

    def _crashed(self, error: BaseException) -> None:
        log.error("engine_failed", error=repr(error))
        self._lifecycle.add(Event.CRASH)
        self._wake()


def _admission(config: Config, geo: Geo) -> Admission:
    return Admission(
        config.admission,
        config.affinity,
        config.ejection,
        geo.locate,
        dial_timeout_secs=config.engine.connect_timeout_secs,
        access=AccessControl(config.access, config.rate_limit),
        breaker=config.circuit_breaker,
        health=config.health,
        circuit_changed=circuit_changed,
        drain_changed=drain_changed,
        is_logged=config.proxy.access_log != OFF,
    )


def _backend_authorities(config: Config) -> tuple[Authorities | None, bytes | None]:
    """Return the authorities of backends and their PEM text; both None without TLS to backends."""
    if not config.listeners.backend_tls:
        return None, None
    from edgeproxy.tls.authorities import backend_authorities

    return backend_authorities(config.listeners.backend_tls_ca)


def serve(loaded: Loaded) -> int:
    """Run a proxy with this configuration. Returns the exit code; raises EdgeProxyError."""
    events.start(loaded.config.log)
    try:
        return Proxy(loaded).run()
    finally:
        events.stop()
        for number in HEARD_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # Python drops its handlers before it exits
