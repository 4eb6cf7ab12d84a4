"""Probes every backend on its own schedule and reports when one goes up or down.

Each backend has its own task and its own offset in the interval, so neither a slow backend nor
their number delays a probe. Verdicts are kept here, for this POP only, and reported to the
callback. The `healthy` column belongs to the operator and is never written.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from edgeproxy.control.health.connection import Turns
from edgeproxy.control.health.probe import NotProbedError, probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import PLAIN, HealthSettings, Opening, ProbeSettings, Verdict
from edgeproxy.log import EventLog, Throttle

log = EventLog("health")

JITTER = 0.1
"""The interval varies by up to this fraction."""
QUIET_SECS = 10.0
"""Seconds between two log lines about probes that could not be made."""
AT_ONCE = 512
"""Maximum number of probes at a time; each needs a descriptor."""

Judged = Callable[[str, bool], object]
"""Called with a backend's id and whether it is up, when that changes."""


class Checker:
    """The probes of all backends. For one event loop.

    Attributes:
        verdicts: The verdict on each backend, by id.
    """

    def __init__(
        self,
        judged: Judged,
        settings_of: Callable[[Backend, ProbeSettings], ProbeSettings] = lambda _, same: same,
        opening_of: Callable[[str], Opening] = lambda _app: PLAIN,
        rng: random.Random | None = None,
    ) -> None:
        """`opening_of` says what a connection to the backends of an app begins with."""
        self.verdicts: dict[str, Verdict] = {}
        self._settings = ProbeSettings()
        self._health = HealthSettings()
        self._in_use: object = None
        self._judged = judged
        self._settings_of = settings_of
        self._opening_of = opening_of
        self._turns = Turns()
        self._throttle = Throttle(QUIET_SECS)
        self._rng = rng or random.Random()  # noqa: S311
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, tuple[Backend, asyncio.Task[None]]] = {}
        self._followed: Sequence[Backend] = ()

    def use(self, settings: ProbeSettings, health: HealthSettings, more: object = None) -> None:
        """Apply these settings if they changed; verdicts are kept.

        `more` is any other value that `settings_of` depends on.
        """
        if self._in_use == (settings, health, more):
            return
        self._in_use = (settings, health, more)
        self._settings = settings
        self._health = health
        known = [backend for backend, _ in self._tasks.values()]
        for _, task in self._tasks.values():
            task.cancel()
        if settings.enabled:
            self._tasks.clear()  # the verdicts stay
        self.follow(known)

    def follow(self, backends: Sequence[Backend]) -> None:
        """Probe these backends from now on, and no others.

        The caller must not modify the sequence: the same object again counts as unchanged.
        """
        if backends is self._followed:
            return
        self._followed = backends
        enabled = self._settings.enabled
        probed = {backend.id: backend for backend in backends if enabled and not backend.deleted}
        for backend_id, (backend, task) in list(self._tasks.items()):
            current = probed.get(backend_id)
            if current is None or current.address != backend.address:
                task.cancel()
                del self._tasks[backend_id]
                self._forget(backend_id)
        for backend_id, backend in probed.items():
            if backend_id not in self._tasks:
                self.verdicts.setdefault(backend_id, Verdict())
                task = asyncio.get_running_loop().create_task(self._watch(backend))
                self._tasks[backend_id] = (backend, task)

    def stop(self) -> None:
        """End all probes."""
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _forget(self, backend_id: str) -> None:
        if not self.verdicts.pop(backend_id).up:
            self._judged(backend_id, True)

    async def _watch(self, backend: Backend) -> None:
        """Probe one backend until the task is cancelled."""
        settings = self._settings_of(backend, self._settings)
        await asyncio.sleep(self._rng.random() * settings.interval_secs)
        while True:
            began_at = time.monotonic()
            fault: str | None = None
            try:
                async with self._room:
                    opening = self._opening_of(backend.app)
                    fault = await probe(backend, settings, opening, self._turns)
            except NotProbedError as error:
                self._tell_not_probed(backend, str(error))
            except Exception as error:  # noqa: BLE001 — a probe that fails for any reason counts as a failed check
                fault = f"probe failed: {type(error).__name__}: {error}"
                if fault != self.verdicts[backend.id].last:  # logged once, not at each probe
                    log.bug("probe_failed", backend=backend.id)
            if fault is not None:
                self._hear(backend, fault)
            pause_secs = settings.interval_secs * self._rng.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(pause_secs - (time.monotonic() - began_at), 0.0))

    def _tell_not_probed(self, backend: Backend, reason: str) -> None:
        suppressed = self._throttle.admit(time.monotonic())
        if suppressed is not None:
            log.warning(
                "backend_not_probed", backend=backend.id, reason=reason, suppressed=suppressed
            )

    def _hear(self, backend: Backend, fault: str) -> None:
        verdict = self.verdicts[backend.id]
        if not verdict.hear(self._health, fault, time.monotonic()):
            return
        if verdict.up:
            log.info("backend_up", backend=backend.id, address=backend.address)
        else:
            log.warning("backend_down", backend=backend.id, address=backend.address, fault=fault)
        self._judged(backend.id, verdict.up)
