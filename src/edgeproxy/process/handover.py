"""Starts a successor of this process; hands it the listening sockets and the drained backends.

Both processes have the same sockets, so no client that connects meanwhile is refused or lost: the
successor accepts as soon as it is ready, and only then does this process stop accepting. If the
successor does not get ready, nothing has changed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog
from edgeproxy.process import systemd
from edgeproxy.process.lifecycle import Event, Lifecycle, Phase

if TYPE_CHECKING:
    import asyncio
    import subprocess

log = EventLog("app")

HANDED = "_EDGEPROXY_HANDED"
"""Names and descriptors of what is handed, such as `default:7,metrics:8`."""
DRAINED = "_EDGEPROXY_DRAINED"
"""The ids of the backends that are being drained, as a list in JSON."""
READY = "_EDGEPROXY_READY"
"""The descriptor on which the successor says that it is ready."""
READY_SECS = 30.0
ENDING_SECS = 5.0
NOT_HANDED = {"WATCHDOG_PID"}
"""Variables that concern this process alone. Without WATCHDOG_PID, the successor answers systemd's
watchdog, because systemd takes it for the main process from then on."""


STOPPING = "the proxy is being stopped already"


class Upgrade:
    """The upgrade of one proxy: it starts a successor, and then this process is to stop."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        sockets: Callable[[], dict[str, socket.socket]],
        drained: Callable[[], list[str]],
        handed_over: Callable[[], object],
    ) -> None:
        """`sockets` and `drained` return what is handed; `handed_over` is called after that."""
        self._lifecycle = lifecycle
        self._sockets = sockets
        self._drained = drained
        self._handed_over = handed_over
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start a successor in the background; how that ends is logged. Loop only."""
        import asyncio

        if self._lifecycle.is_stopping:  # the loop may end before a task would run
            log.warning("upgrade_failed", reason=STOPPING)
            return
        self._task = asyncio.ensure_future(self._try())

    async def run(self) -> int:
        """Start a successor, then stop this process as on SIGTERM. Return the successor's id.

        Raises EdgeProxyError if no successor gets ready; then everything goes on as before.
        """
        try:
            return await self._run()
        except EdgeProxyError as error:
            log.warning("upgrade_failed", reason=error)
            raise

    async def _try(self) -> None:
        with suppress(EdgeProxyError):  # `run` has logged it
            await self.run()

    async def _run(self) -> int:
        if self._lifecycle.is_stopping:
            raise EdgeProxyError(STOPPING)
        if self._lifecycle.phase is Phase.UPGRADING:
            raise EdgeProxyError("the proxy is being upgraded already")
        sockets = self._sockets()
        self._lifecycle.add(Event.UPGRADE_BEGUN)
        log.info("upgrading")
        try:
            pid = await start_successor(sockets, self._drained())
        except BaseException:
            self._lifecycle.add(Event.UPGRADE_FAILED)
            raise
        self._lifecycle.add(Event.SUCCESSOR_READY)
        if not self._lifecycle.has_successor:  # a stop came meanwhile: stop the successor, too
            os.kill(pid, signal.SIGTERM)
            raise EdgeProxyError("the proxy has been asked to stop")
        log.info("upgraded", successor=pid)
        systemd.notify(f"MAINPID={pid}")
        self._handed_over()
        return pid


def handed_sockets() -> dict[str, socket.socket]:
    """Return what a predecessor has handed to this process, by name. Only once."""
    text = os.environ.pop(HANDED, "")
    pairs = (each.rpartition(":") for each in text.split(",") if each)
    return {name: socket.socket(fileno=int(fd)) for name, _, fd in pairs}


def handed_drains() -> list[str]:
    """Return the backends that a predecessor was draining, by id. Only once."""
    return [str(each) for each in json.loads(os.environ.pop(DRAINED, "[]"))]


def has_predecessor() -> bool:
    """Return whether this process is to take over from another one that still serves."""
    return READY in os.environ


def tell_predecessor() -> None:
    """Tell the process that started this one as its successor that clients are accepted."""
    fd = os.environ.pop(READY, "")
    if fd:
        os.write(int(fd), str(os.getpid()).encode())
        os.close(int(fd))


async def start_successor(sockets: Mapping[str, socket.socket], drained: Iterable[str] = ()) -> int:
    """Start another process like this one with these sockets; return its process id.

    The successor sends no clients to the `drained` backends either.

    Returns when it accepts clients. Raises EdgeProxyError if it does not get ready; it has been
    ended then.
    """
    import asyncio
    import subprocess

    if os.getpid() == 1:
        raise EdgeProxyError(
            "process 1 cannot hand over to a successor: its container ends with it; start "
            "another container instead"
        )
    reading, writing = os.pipe2(os.O_CLOEXEC)
    environ = {name: text for name, text in os.environ.items() if name not in NOT_HANDED}
    environ[HANDED] = ",".join(f"{name}:{each.fileno()}" for name, each in sockets.items())
    environ[DRAINED] = json.dumps(list(drained))
    try:
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *sys.orig_argv[1:]],
                env={**environ, READY: str(writing)},
                pass_fds=[writing, *(each.fileno() for each in sockets.values())],
            )
        except OSError as error:
            raise EdgeProxyError(f"the successor cannot be started: {error.strerror}") from None
        finally:
            os.close(writing)
        said = await asyncio.to_thread(_read_within, reading, READY_SECS)
        fault = "" if said else await asyncio.to_thread(_ended, process, said)
    except asyncio.CancelledError:
        process.kill()  # its readiness is not waited for any more
        raise
    finally:
        os.close(reading)
    if fault:
        raise EdgeProxyError(f"the successor {fault}; its log says why")
    process.returncode = 0  # it outlives this process; do not wait for it
    return process.pid


def _read_within(fd: int, secs: float) -> bytes | None:
    """Return the bytes written to a pipe; none at its end, None if nothing comes in time."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return os.read(fd, 64) if poll.poll(secs * 1000) else None


def _ended(process: subprocess.Popen[bytes], said: bytes | None) -> str:
    """Make sure that a successor that did not get ready has ended. Return what happened."""
    import subprocess

    if said is not None:  # it has closed its end of the pipe, so it is ending
        with suppress(subprocess.TimeoutExpired):
            return f"ended before it was ready, with exit code {process.wait(ENDING_SECS)}"
    process.kill()
    process.wait()
    return f"did not get ready within {READY_SECS:g} s and was ended"
