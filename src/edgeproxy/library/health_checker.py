"""The health checks of one backend; see `control/health/probe` and `core/backends/health`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Self

from edgeproxy import values as value
from edgeproxy.control.health.connection import Turns
from edgeproxy.control.health.probe import NotProbedError, probe
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import KINDS, PLAIN, HealthSettings, ProbeSettings, Verdict

MAX_PORT = 65535


class HealthChecker:
    """Probes a backend at an interval, in an `async with` block.

    Args:
        backend_id: The backend's name.
        host, port: The backend's address.
        kind: `tcp`, `http`, `grpc` or `exec`.
        path, status, host_header: HTTP: the path, the expected status and the Host header.
        service: gRPC: the service to check.
        command: exec: the command to run.
        interval_secs: From one probe to the next.
        timeout_secs: How long one probe may take.
        healthy_threshold, unhealthy_threshold: Results in a row that change the verdict.
        changed: Called with `is_healthy` when it changes. An exception that it raises in the block
            goes to the loop's exception handler, and the probes go on.

    Raises ValueError for a value that is not allowed.
    """

    def __init__(
        self,
        backend_id: str,
        host: str,
        port: int,
        *,
        kind: str = "tcp",
        path: str = "/health",
        status: int = 200,
        host_header: str = "",
        service: str = "",
        command: str = "",
        interval_secs: float = 5.0,
        timeout_secs: float = 2.0,
        healthy_threshold: int = 2,
        unhealthy_threshold: int = 3,
        changed: Callable[[bool], object] = lambda _healthy: None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if not 1 <= port <= MAX_PORT:
            raise ValueError(f"port must be 1 to {MAX_PORT}, not {port}")
        if not all(threshold >= 1 for threshold in (healthy_threshold, unhealthy_threshold)):
            raise ValueError("thresholds must be 1 or more")
        if not all(secs > 0 and math.isfinite(secs) for secs in (interval_secs, timeout_secs)):
            raise ValueError("interval_secs and timeout_secs must be more than 0, and finite")
        if kind == "http":
            _check("path", value.http_path, path)
            if host_header:
                _check("host_header", value.host_header, host_header)
        if kind == "exec":
            _check("command", value.command, command)
        self._backend = Backend(backend_id, "", "", host, port)
        self._settings = ProbeSettings(
            True, interval_secs, timeout_secs, kind, path, status, host_header, service, command
        )
        self._health = HealthSettings(healthy_threshold, unhealthy_threshold)
        self._verdict = Verdict()
        self._turns = Turns()
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether the backend is healthy; true until enough probes have failed."""
        return self._verdict.up

    @property
    def last_fault(self) -> str:
        """The fault of the last probe, "" if it succeeded or there was none."""
        return self._verdict.last

    async def check(self) -> bool:
        """Probe the backend once, now. Return whether the probe succeeded.

        One for which this host has no descriptors or memory left does not count.
        """
        try:
            fault = await probe(self._backend, self._settings, PLAIN, self._turns)
        except NotProbedError:
            return False
        except Exception as error:  # noqa: BLE001 — a probe that raises is a failed probe
            fault = f"probe failed: {type(error).__name__}: {error}"
        if self._verdict.hear(self._health, fault, time.monotonic()):
            self._changed(self._verdict.up)
        return not fault

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            began_at = time.monotonic()
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001 — of `changed`, which is not ours
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "`changed` of a HealthChecker failed", "exception": error}
                )
            pause_secs = self._settings.interval_secs - (time.monotonic() - began_at)
            await asyncio.sleep(max(pause_secs, 0.0))


def _check(name: str, parse: Callable[[str], object], given: str) -> None:
    """Raise ValueError if an argument is not what this setting of the proxy allows."""
    try:
        parse(given)
    except value.BadValueError as bad:
        raise ValueError(f"{name}={given!r}: {bad}") from None
