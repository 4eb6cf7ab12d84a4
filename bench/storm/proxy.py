"""A real `edgeproxy serve` process, watched through its log and /proc."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.storm.fault import PATIENCE_SECS, FaultError
from bench.storm.protocol import Address

SHUTDOWN_SECS = 30


class Proxy:
    """A real `edgeproxy serve` process in `folder`, watched through its log and /proc.

    `settings` are variables beside those that every storm needs; paths are from `folder`.
    """

    address: Address

    def __init__(self, folder: Path, engine: str, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.database = folder / "routing.db"
        self.events: list[dict[str, Any]] = []
        self.foreign: list[str] = []
        self._environment = {
            **{key: text for key, text in os.environ.items() if not key.startswith("EDGEPROXY_")},
            "EDGEPROXY_ENGINE": engine,
            "EDGEPROXY_DB_PATH": str(self.database),
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_DB_RELOAD_SECS": "0.2",
            "EDGEPROXY_BINDING_TTL_SECS": "0.5",
            "EDGEPROXY_SHUTDOWN_TIMEOUT_SECS": str(SHUTDOWN_SECS),
            "EDGEPROXY_LOG_FORMAT": "json",
            "EDGEPROXY_CONFIG": "",
            "EDGEPROXY_CONTROL_SOCKET": "off",
            **settings,
        }
        self._program = (sys.executable, "-m", "edgeproxy")

    async def start(self) -> None:
        """Return when it accepts clients. Raises FaultError if it ends instead."""
        self._process = await asyncio.create_subprocess_exec(
            *self._program,
            "serve",
            env=self._environment,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
        )
        self._reading = asyncio.create_task(self._read())
        while not self.seen("ready"):
            if self._process.returncode is not None:
                raise FaultError(f"did not start: {self.foreign}")
            await asyncio.sleep(0.02)
        host, _, port = self.seen("ready")[0]["listen"].rpartition(":")
        self.address = (host, int(port))
        self.pid = self._process.pid

    async def follows(self, node: str) -> None:
        """Return when it has followed an edit: it has everything open then that it keeps open."""
        await self.command("node", "weight", node, "3")
        while len(self.seen("table_published")) < 2:
            await asyncio.sleep(0.02)

    def seen(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log that report this event."""
        return [line for line in self.events if line["event"] == event]

    async def command(self, *words: str) -> int:
        """Run another `edgeproxy` command and return its exit code.

        What needs the database may fail while that is damaged.
        """
        process = await asyncio.create_subprocess_exec(
            *self._program,
            *words,
            env=self._environment,
            cwd=self.folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    async def metrics(self) -> str:
        """Return the page of its metrics."""
        (told,) = self.seen("metrics")
        host, _, port = told["listen"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET {told['path']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        page = await reader.read()
        writer.close()
        await writer.wait_closed()
        return page.decode()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def exit_code(self, within_secs: float) -> int | None:
        """Return its exit code, None if it goes on for longer than `within_secs`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_secs):
                await self._process.wait()
                await self._reading
        return self._process.returncode

    async def kill(self) -> None:
        """End it if it runs."""
        if self._process.returncode is None:
            self._process.kill()
            await self.exit_code(PATIENCE_SECS)

    def memory_mb(self) -> float:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def descriptors(self) -> Counter[str]:
        """Count its open descriptors by kind, as `socket` or `pipe`."""
        kinds: Counter[str] = Counter()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with suppress(OSError):
                kinds[os.readlink(f"/proc/{self.pid}/fd/{name}").partition(":")[0]] += 1
        return kinds

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.foreign.append(line.decode(errors="replace").rstrip())
