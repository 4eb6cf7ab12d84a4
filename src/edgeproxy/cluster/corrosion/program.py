"""Keeps the program Corrosion running: starts it, watches it, starts it again, ends it.

One that ends is started again after a pause that grows while it ends soon. One that does not answer
on its admin socket for `WEDGED_SECS` is killed. A program that was left by an agent that was killed
is ended before another one is started: it holds a lock for as long as it lives.

For the event loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from edgeproxy.cluster.corrosion.configuration import Place
from edgeproxy.cluster.engine import EngineError
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog

log = EventLog("cluster")

LOOK_SECS = 1.0
WEDGED_SECS = 30.0
FIRST_PAUSE_SECS = 0.5
LONGEST_PAUSE_SECS = 30.0
STEADY_SECS = 60.0
"""A program that has lived for so long is started again after the shortest pause."""
END_SECS = 8.0
"""How long it may take to leave the cluster; it allows itself five."""
LOCK_LOOK_SECS = 0.05
MAX_LINE_BYTES = 64 << 10
_SECTIONS = {"db", "api", "gossip", "perf", "admin", "telemetry", "log", "consul", "reaper"}
"""What Corrosion would also read from its environment."""


class Program:
    """One Corrosion.

    Attributes:
        place: Where the one that runs listens; None while none does.
        starts_total: How often it was started.
        fault: Why it does not run; "" if it does.
    """

    def __init__(
        self,
        path: str,
        folder: Path,
        prepare: Callable[[], Place],
        look: Callable[[], Awaitable[object]],
    ) -> None:
        """`prepare` writes its files; `look` asks it something, and raises if it fails."""
        self._path = path
        self._folder = folder
        self._prepare = prepare
        self._look = look
        self._process: asyncio.subprocess.Process | None = None
        self.place: Place | None = None
        self.starts_total = 0
        self.fault = "it has not started yet"

    async def run(self) -> None:
        """Keep it running until this is cancelled, and then end it."""
        pause_secs = FIRST_PAUSE_SECS
        try:
            while True:
                began_at = time.monotonic()
                try:
                    self.fault = await self._live()
                except (EdgeProxyError, OSError) as error:
                    self.fault = str(error)
                log.warning("corrosion_ended", reason=self.fault)
                is_steady = time.monotonic() - began_at > STEADY_SECS
                pause_secs = FIRST_PAUSE_SECS if is_steady else pause_secs * 2
                await asyncio.sleep(min(pause_secs, LONGEST_PAUSE_SECS))
        finally:
            await asyncio.shield(self._end())

    async def _live(self) -> str:
        """Start it, and return why it has ended."""
        lock = await self._lock()
        try:
            place = self._prepare()
            self._process = process = await asyncio.create_subprocess_exec(
                *(self._path, "--config", str(place.configuration), "agent"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment_for(os.environ),
                pass_fds=(lock,),
                limit=MAX_LINE_BYTES,
            )
            os.pwrite(lock, str(process.pid).encode().ljust(20), 0)
        finally:
            os.close(lock)  # from now on it is held by the program alone
        self.starts_total += 1
        self.fault, self.place = "", place
        log.info("corrosion_started", pid=process.pid, path=self._path)
        try:
            assert process.stdout is not None
            telling = asyncio.ensure_future(_tell(process.stdout))
            watching = asyncio.ensure_future(self._watch(process))
            try:
                code = await process.wait()
            finally:
                watching.cancel()
                telling.cancel()
        finally:
            self.place = None
        return f"it has ended with code {code}"

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        heard_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECS)
            with suppress(EngineError):
                await self._look()
                heard_at = time.monotonic()
            silent_secs = time.monotonic() - heard_at
            if silent_secs > WEDGED_SECS:
                log.error("corrosion_wedged", pid=process.pid, secs=round(silent_secs))
                process.kill()
                return

    async def _end(self) -> None:
        """Ask it to leave the cluster and end; kill it if it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(END_SECS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _lock(self) -> int:
        """Return the lock that a program holds, after ending one that an earlier agent left."""
        lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                pid = os.pread(lock, 20, 0).strip()
                if _take(lock):
                    break
                log.warning("corrosion_left", pid=pid.decode(), signal=number.name)
                with suppress(ProcessLookupError, ValueError):
                    os.kill(int(pid), number)
                deadline = time.monotonic() + END_SECS
                while time.monotonic() < deadline and not _take(lock):
                    await asyncio.sleep(LOCK_LOOK_SECS)
            if not _take(lock):
                raise EngineError(f"another Corrosion uses {self._folder}: end it")
            os.ftruncate(lock, 0)
        except BaseException:
            os.close(lock)
            raise
        return lock


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_for(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what Corrosion would take for its own settings."""
    kept = {
        name: value
        for name, value in environment.items()
        if name.lower().split("__")[0] not in _SECTIONS
    }
    return {"RUST_LOG": "info", **kept}


async def _tell(lines: asyncio.StreamReader) -> None:
    """Pass what it logs on to this log, until its end."""
    while True:
        try:
            line = await lines.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            line = await lines.readexactly(error.consumed)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                tell(error.partial)
            return
        tell(line)


def tell(line: bytes) -> None:
    """Report one line of its log. What is normal for it is a detail here."""
    text = line.decode("utf-8", "replace").strip()
    level, target, message = "WARN", "", text
    with suppress(ValueError, KeyError, TypeError):
        content = json.loads(text)
        level, target = content["level"], content.get("target", "")
        message = content["fields"].get("message", text)
    report = {"ERROR": log.warning, "WARN": log.warning}.get(level, log.debug)
    report("corrosion", target=target, message=message)
