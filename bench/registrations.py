"""Measures the API by which backends register: how soon they get clients, what many of them cost.

    ./task bench-api                           # in a file
    ./task bench-api -- --postgres URL         # on a server; its tables are emptied

Backends register one at a time, and each waits for the first byte that comes through the proxy;
then a thousand at the same moment; then ten thousand send heartbeats, as many in a second as they
would with a TTL of a minute, while the proxy's processor time and all writes are watched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from bench.process import Process, split_cpus
from tests.ports import free_port

ONE_BY_ONE = 200
AT_ONCE = 1000
TTL_SECS = 60.0
HEARTBEATS_IN_A_TTL = 3
CONNECTIONS = 20
TIMEOUT_SECS = 60.0


class Backend:
    """Says its first byte to whoever connects."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client = self._listening.accept()[0]
            client.send(b"!")
            client.close()


class Caller:
    """One connection to the API that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, said: object = None) -> int:
        """Return the status of the answer."""
        body = b"" if said is None else json.dumps(said).encode()
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        await self._reader.readexactly(length)
        return int(head.split()[1])

    def close(self) -> None:
        """Leave."""
        self._writer.close()


def registration(number: int, port: int) -> dict[str, object]:
    """Return what a backend registers with."""
    return {"id": f"b{number}", "app": "bench", "region": "sa", "ip": "127.0.0.1", "port": port}


async def called(port: int, number: int = 0) -> Caller:
    """Return a new connection to the API, from an address that this number chooses.

    The API limits what one address may ask.
    """
    source = f"127.1.{number // 250 % 250}.{number % 250 + 1}"
    return Caller(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))


async def one_by_one(api_port: int, proxy_port: int, port: int) -> list[float]:
    """Return how long each had to wait for its first client's first byte, in seconds."""
    caller = await called(api_port)
    times = []
    for number in range(ONE_BY_ONE):
        begun = time.perf_counter()
        assert await caller.post("/api/v1/register", registration(number, port)) == 201
        with socket.create_connection(("127.0.0.1", proxy_port), TIMEOUT_SECS) as client:
            assert client.recv(1) == b"!"
        times.append(time.perf_counter() - begun)
    caller.close()
    return times


async def at_once(api_port: int, numbers: Iterable[int], port: int) -> float:
    """Return how long it took until all had their answer, in seconds."""

    async def one(number: int) -> None:
        caller = await called(api_port, number)
        assert await caller.post("/api/v1/register", registration(number, port)) == 201
        caller.close()

    begun = time.perf_counter()
    await asyncio.gather(*map(one, numbers))
    return time.perf_counter() - begun


async def heartbeats(api_port: int, backends: int, secs: float) -> int:
    """Let them all show life for so long; return how many heartbeats were answered with 200."""
    rate = backends * HEARTBEATS_IN_A_TTL / TTL_SECS
    begun = time.perf_counter()
    heard = 0

    async def some(first: int) -> None:
        nonlocal heard
        caller = await called(api_port, first)
        for turn in range(int(secs * rate / CONNECTIONS)):
            sent = turn * CONNECTIONS + first
            await asyncio.sleep(max(begun + sent / rate - time.perf_counter(), 0))
            heard += await caller.post(f"/api/v1/heartbeat/b{sent % backends}") == 200
        caller.close()

    await asyncio.gather(*map(some, range(CONNECTIONS)))
    return heard


def file_state(path: Path) -> Callable[[], Awaitable[object]]:
    """Return what gives something else after each write of this file."""
    connection = sqlite3.connect(path)

    async def state() -> object:
        return connection.execute("PRAGMA data_version").fetchone()

    return state


def server_state(url: str) -> Callable[[], Awaitable[object]]:
    """Return what gives something else after each write of the tables there."""

    async def state() -> object:
        import asyncpg

        connection = await asyncpg.connect(url)
        sums = [
            await connection.fetchval(
                f"SELECT coalesce(sum(hashtext(xmin::text || ' ' || id)), 0) FROM {table}"
            )
            for table in ("backends", "edgeproxy_leases")
        ]
        await connection.close()
        return sums

    return state


async def measure(
    process: Process,
    ports: tuple[int, int],
    state: Callable[[], Awaitable[object]],
    wanted: argparse.Namespace,
) -> None:
    """Measure and print."""
    api_port, proxy_port = ports
    port = Backend().port
    await (await called(api_port)).post("/api/v1/heartbeat/nobody")  # until it is served
    times = sorted(await one_by_one(api_port, proxy_port, port))
    print(
        f"from registering to the first byte, {ONE_BY_ONE} one by one: median "
        f"{statistics.median(times) * 1000:.1f} ms, 99 of 100 within "
        f"{times[int(len(times) * 0.99) - 1] * 1000:.1f} ms, worst {times[-1] * 1000:.1f} ms"
    )
    there = ONE_BY_ONE
    secs = await at_once(api_port, range(there, there + AT_ONCE), port)
    print(f"{AT_ONCE} at the same moment: {secs:.2f} s")
    there += AT_ONCE
    while there < wanted.backends:
        more = min(AT_ONCE, wanted.backends - there)
        await at_once(api_port, range(there, there + more), port)
        there += more
    before, spent_secs = await state(), process.cpu_secs()
    begun = time.perf_counter()
    heard = await heartbeats(api_port, there, wanted.secs)
    took_secs = time.perf_counter() - begun
    spent_secs = process.cpu_secs() - spent_secs
    wrote = "nothing was written" if await state() == before else "SOMETHING WAS WRITTEN"
    print(
        f"{there} backends, {heard / took_secs:.0f} heartbeats a second for {took_secs:.0f} s: "
        f"{spent_secs / took_secs:.1%} of a core, {wrote}"
    )


def main() -> int:
    """Start a proxy, measure it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--postgres", metavar="URL", help="a database that may be emptied")
    parser.add_argument("--backends", type=int, default=10_000)
    parser.add_argument("--secs", type=float, default=60.0, help="how long heartbeats are sent")
    wanted = parser.parse_args()
    program = str(Path(sys.executable).with_name("edgeproxy"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        proxy_port, api_port = free_port(), free_port()
        environ = {
            "EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{proxy_port}",
            "EDGEPROXY_DB_PATH": str(folder / "routing.db"),
            "EDGEPROXY_CONFIG": "",
            "EDGEPROXY_CONTROL_SOCKET": "off",
            "EDGEPROXY_API_ENABLED": "true",
            "EDGEPROXY_API_LISTEN_ADDR": f"127.0.0.1:{api_port}",
        }
        if wanted.postgres:
            environ |= {
                "EDGEPROXY_POSTGRES_ENABLED": "true",
                "EDGEPROXY_POSTGRES_URL": wanted.postgres,
            }
        force = ["--force"] if wanted.postgres else []
        init = [program, "db", "init", *force]
        subprocess.run(init, env={**os.environ, **environ}, check=True, stdout=subprocess.DEVNULL)
        state = (
            server_state(wanted.postgres) if wanted.postgres else file_state(folder / "routing.db")
        )
        with Process([program, "serve"], split_cpus()[0], folder / "log", environ) as process:
            process.wait_until_it_accepts(proxy_port)
            process.wait_until_it_accepts(api_port)
            asyncio.run(measure(process, (api_port, proxy_port), state, wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
