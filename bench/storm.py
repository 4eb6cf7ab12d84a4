"""A mixed storm against a real proxy: nothing lost, nothing mixed up, nothing kept.

    ./task storm                                     # ten minutes in all, on every engine
    ./task storm -- --secs 20 --engine native --seed 7

Clients ping-pong, transfer bulk, half-close, reset, leave early and stall, while nodes are
disabled, removed, weighed and restored, backends go away and come back, the database is
damaged and repaired, and SIGHUPs arrive. Every byte that comes back is compared with what
was sent. One node is never touched, so nobody may be refused. At the end the proxy is asked
to stop during open transfers, which must come to their ends.

Exit code 1 if anything was wrong. Seeds repeat what is chosen, not when it happens.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import itertools
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeproxy.engine.choice import native_engine

CLIENTS_AT_ONCE = 48
LAST_CLIENTS = 24
"""Who has a transfer open when the proxy is asked to stop."""
PATIENCE_SECS = 60.0
"""No client may take longer."""
SHUTDOWN_SECS = 30
EDIT_PAUSE_SECS = 0.3
SHUT_SECS = 0.05
"""How long a handshake that has begun may take to end."""
MEMORY_GROWTH = 0.10
MEMORY_SLACK_MB = 2.0
PIPES_PER_THREAD = 64
"""Descriptors of the pipes that one byte thread keeps for its next bulk."""
DATABASE_DESCRIPTORS = 4
"""The database and its journal are open while it is read, and kept open while it is sound."""

CHUNK = 1 << 16
RING_BYTES = 262_147  # prime, so that no buffer size can hide a shifted or repeated part
RING = random.Random(0).randbytes(RING_BYTES) * 2
GREETING_BYTES = 8
PREFACE_BYTES = 1000
"""What a backend of the modes RESET and CLOSE echoes before it does so."""
ECHO, RESET, CLOSE = b"e", b"r", b"c"

SO_ATTACH_FILTER = 26  # the socket module does not name it

Address = tuple[str, int]


class FaultError(Exception):
    """The proxy has done something wrong."""


# -- backends ---------------------------------------------------------------------------


class Backend:
    """Greets with its id, then echoes, or leaves first if the client's first byte asks for it."""

    def __init__(self, number: int) -> None:
        self.id = f"node-{number}"
        self.address: Address = (f"127.60.0.{number + 1}", 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, on the port it had before if it had one."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(self.address)
        listening.listen(4096)
        self.address = listening.getsockname()
        self._listening = listening
        self._accepting = asyncio.create_task(self._accept(listening))

    async def stop(self) -> None:
        """Refuse new connections; open ones go on, and so do those who have connected just now.

        To close a listening socket resets whoever is in its queue, so nobody may get there.
        """
        listening, self._listening = self._listening, None
        if listening is None or self._accepting is None:
            return
        _let_nobody_in(listening)
        await asyncio.sleep(SHUT_SECS)
        self._accepting.cancel()
        with suppress(asyncio.CancelledError):
            await self._accepting
        with listening, suppress(BlockingIOError):
            while True:
                self._take(listening.accept()[0])

    async def close(self) -> None:
        """Stop, and end what is open."""
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            self._take((await asyncio.get_running_loop().sock_accept(listening))[0])

    def _take(self, tcp: socket.socket) -> None:
        tcp.setblocking(False)
        task = asyncio.create_task(self._serve(tcp))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with tcp, suppress(OSError, EOFError):
            await loop.sock_sendall(tcp, self.id.ljust(GREETING_BYTES).encode())
            mode = await _exactly(tcp, 1)
            if mode != ECHO:
                await loop.sock_sendall(tcp, await _exactly(tcp, PREFACE_BYTES))
            if mode == RESET:
                _reset_on_close(tcp)
                return
            if mode == CLOSE:
                tcp.shutdown(socket.SHUT_WR)
            while part := await loop.sock_recv(tcp, CHUNK):
                if mode == ECHO:
                    await loop.sock_sendall(tcp, part)


async def _exactly(tcp: socket.socket, count: int) -> bytes:
    """Return `count` bytes. Raises EOFError if there are fewer."""
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(tcp, count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _let_nobody_in(listening: socket.socket) -> None:
    """Drop the SYNs that arrive at this socket, and nothing else."""
    program = (
        (0x30, 0, 0, 13),  # the flags of the TCP header,
        (0x54, 0, 0, 0x12),  # of which SYN and ACK:
        (0x15, 0, 1, 0x02),  # a SYN alone
        (0x06, 0, 0, 0),  # is dropped,
        (0x06, 0, 0, 0xFFFFFFFF),  # and all else comes in
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    attached = struct.pack("HL", len(program), ctypes.addressof(code))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)


def _reset_on_close(tcp: socket.socket) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- clients ----------------------------------------------------------------------------


class Client:
    """One connection through the proxy; what it hears must be what it said.

    Attributes:
        said: Bytes of its stream that it has sent.
        heard: Bytes of its stream that have come back.
    """

    def __init__(self, tcp: socket.socket, dice: random.Random) -> None:
        self.tcp = tcp
        self.dice = dice
        self.said = self.heard = 0
        self._start = dice.randrange(RING_BYTES)

    async def say(self, count: int) -> None:
        """Send the next `count` bytes of the stream."""
        loop, end = asyncio.get_running_loop(), self.said + count
        while self.said < end:
            part = self._slice(self.said, min(CHUNK, end - self.said))
            await loop.sock_sendall(self.tcp, part)
            self.said += len(part)

    async def hear(self, count: int) -> None:
        """Receive the next `count` bytes of the stream. Raises FaultError if they are not."""
        loop, end = asyncio.get_running_loop(), self.heard + count
        while self.heard < end:
            part = await loop.sock_recv(self.tcp, min(CHUNK, end - self.heard))
            if not part:
                raise FaultError(f"short: ended after {self.heard} bytes of {end}")
            if part != self._slice(self.heard, len(part)):
                raise FaultError(f"wrong bytes at {self.heard}")
            self.heard += len(part)

    async def hear_end(self) -> None:
        """Receive an ordinary end. Raises FaultError if anything else comes."""
        if await asyncio.get_running_loop().sock_recv(self.tcp, 1):
            raise FaultError(f"more than was sent, after {self.heard} bytes")

    async def echo(self, count: int) -> None:
        """Send `count` bytes and receive them back meanwhile."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.say(count))
            group.create_task(self.hear(count))

    async def choose(self, mode: bytes) -> None:
        """Hear the backend's greeting, and tell it how to go on."""
        try:
            greeting = await _exactly(self.tcp, GREETING_BYTES)
        except EOFError:
            raise FaultError("turned away") from None
        if not greeting.startswith(b"node-"):
            raise FaultError(f"wrong greeting: {greeting!r}")
        await asyncio.get_running_loop().sock_sendall(self.tcp, mode)

    def end(self) -> None:
        """Send a FIN."""
        self.tcp.shutdown(socket.SHUT_WR)

    def _slice(self, start: int, length: int) -> bytes:
        start = (self._start + start) % RING_BYTES
        return RING[start : start + length]


async def ping_pong(client: Client) -> None:
    """Exchange many small messages."""
    await client.choose(ECHO)
    for _ in range(client.dice.randint(1, 100)):
        await client.echo(client.dice.randint(1, 1000))
    client.end()
    await client.hear_end()


async def bulk(client: Client) -> None:
    """Send and receive megabytes at once."""
    await client.choose(ECHO)
    await client.echo(client.dice.randint(1, 6_000_000))
    client.end()
    await client.hear_end()


async def half_close(client: Client) -> None:
    """Say everything, end, and only then hear it; the kernel's buffers hold that much."""
    await client.choose(ECHO)
    size = client.dice.randint(1, 100_000)
    await client.say(size)
    client.end()
    await client.hear(size)
    await client.hear_end()


async def stall(client: Client) -> None:
    """Leave what comes back unread for a while."""
    await client.choose(ECHO)
    size = client.dice.randint(1_000_000, 8_000_000)
    saying = asyncio.create_task(client.say(size))
    try:
        await asyncio.sleep(client.dice.uniform(0.05, 1.0))
        await client.hear(size)
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
    client.end()
    await client.hear_end()


async def idle(client: Client) -> None:
    """Say little and pause in between."""
    await client.choose(ECHO)
    for _ in range(3):
        await client.echo(100)
        await asyncio.sleep(client.dice.uniform(0.0, 0.7))
    client.end()
    await client.hear_end()


async def leave_at_once(client: Client) -> None:
    """Say nothing at all."""
    if client.dice.random() < 0.5:
        _reset_on_close(client.tcp)


async def reset_in_the_middle(client: Client) -> None:
    """Reset with bytes on the way in both directions."""
    await client.choose(ECHO)
    await client.say(client.dice.randint(1, 200_000))
    _reset_on_close(client.tcp)


async def leave_in_the_middle(client: Client) -> None:
    """Close with bytes unread, after having checked some."""
    await client.choose(ECHO)
    size = client.dice.randint(2, 200_000)
    await client.say(size)
    await client.hear(size // 2)


async def be_left(client: Client) -> None:
    """Go on sending after the backend has ended its direction."""
    await client.choose(CLOSE)
    await client.echo(PREFACE_BYTES)
    await client.hear_end()
    await client.say(client.dice.randint(1, 500_000))


async def be_reset(client: Client) -> None:
    """Hear everything that the backend said before it reset, and then the reset."""
    await client.choose(RESET)
    await client.echo(PREFACE_BYTES)
    try:
        await client.hear_end()
    except ConnectionResetError:
        return
    raise FaultError("a reset came as an ordinary end")


async def long_transfer(client: Client) -> None:
    """Be busy for some seconds, and then be served to the end."""
    await client.choose(ECHO)
    for _ in range(30):
        await client.echo(client.dice.randint(1, 300_000))
        await asyncio.sleep(0.05)
    client.end()
    await client.hear_end()


Manner = Callable[[Client], Awaitable[None]]

MANNERS: dict[Manner, int] = {
    ping_pong: 30,
    bulk: 8,
    half_close: 10,
    stall: 4,
    idle: 6,
    leave_at_once: 8,
    reset_in_the_middle: 8,
    leave_in_the_middle: 8,
    be_left: 8,
    be_reset: 8,
}


# -- the proxy --------------------------------------------------------------------------


class Proxy:
    """A real `edgeproxy serve` process in `folder`, watched through its log and /proc."""

    address: Address

    def __init__(self, folder: Path, engine: str) -> None:
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
        }
        self._program = (sys.executable, "-m", "edgeproxy")

    async def start(self) -> None:
        """Return when it accepts clients. Raises FaultError if it ends instead."""
        self._process = await asyncio.create_subprocess_exec(
            *self._program, "serve", env=self._environment, stderr=asyncio.subprocess.PIPE
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

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.foreign.append(line.decode(errors="replace").rstrip())

    def seen(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log that report this event."""
        return [line for line in self.events if line["event"] == event]

    async def command(self, *words: str) -> None:
        """Run another `edgeproxy` command on its database; it may fail while that is damaged."""
        process = await asyncio.create_subprocess_exec(
            *self._program,
            *words,
            env=self._environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()

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


# -- the storm --------------------------------------------------------------------------


@dataclass
class Report:
    """What one storm has shown: a value for each question, and whether it is as it should be."""

    engine: str
    rows: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def note(self, question: str, value: object, *, is_good: bool = True) -> None:
        """Add a row."""
        self.rows[question] = (str(value), is_good)

    @property
    def is_good(self) -> bool:
        """Whether all of it is as it should be."""
        return all(is_good for _, is_good in self.rows.values())


class Storm:
    """One storm of `secs` against one engine."""

    def __init__(self, folder: Path, engine: str, secs: float, seed: int) -> None:
        self.report = Report(engine)
        self._proxy = Proxy(folder, engine)
        self._backends = [Backend(number) for number in range(5)]
        self._secs = secs
        self._seed = seed
        self._sound = folder / "sound.db"
        self._may_connect = asyncio.Event()
        self._over = False
        self._open = 0
        self._visits: Counter[str] = Counter()
        self._edits: Counter[str] = Counter()
        self._faults: list[str] = []
        self._bytes = 0
        self._samples: list[tuple[float, float]] = []

    async def run(self) -> Report:
        """Rage, and return what it has shown."""
        for backend in self._backends:
            backend.start()
        self._make_database()
        await self._proxy.start()
        try:
            await self._rage()
        finally:
            self._over = True
            await self._proxy.kill()
            for backend in self._backends:
                await backend.close()
        return self.report

    async def _rage(self) -> None:
        await self._proxy.follows(self._backends[1].id)
        began = time.monotonic()
        at_start = self._proxy.descriptors()["socket"]
        self._may_connect.set()
        tasks = [asyncio.create_task(self._client(n)) for n in range(CLIENTS_AT_ONCE)]
        tasks += [asyncio.create_task(each()) for each in (self._edit, self._sample)]
        await asyncio.sleep(self._secs / 4)
        early = await self._lull(at_start)
        self._may_connect.set()
        await asyncio.sleep(max(0.0, began + self._secs - time.monotonic()))
        late = await self._lull(at_start)
        self._over = True
        self._may_connect.set()
        await asyncio.gather(*tasks)
        self._tell_of_clients()
        self._tell_of_descriptors(at_start, early, late)
        self._tell_of_memory(began)
        await self._stop()

    async def _lull(self, sockets: int) -> Counter[str]:
        """Let everybody leave; return what is open when the proxy has forgotten them."""
        self._may_connect.clear()
        deadline = time.monotonic() + PATIENCE_SECS
        while time.monotonic() < deadline:
            found = self._proxy.descriptors()
            if not self._open and found["socket"] == sockets:
                break
            await asyncio.sleep(0.05)
        return found

    async def _client(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        while True:
            await self._may_connect.wait()
            if self._over:
                return
            (manner,) = dice.choices([*MANNERS], [*MANNERS.values()])
            await self._visit(manner, random.Random(dice.random()))

    async def _visit(self, manner: Manner, dice: random.Random) -> None:
        name = getattr(manner, "__name__", "")
        source = f"127.70.{dice.randrange(4)}.{dice.randrange(1, 50)}"
        tcp = socket.socket()
        client = Client(tcp, dice)
        self._open += 1
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                tcp.setblocking(False)
                tcp.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(tcp, self._proxy.address)
                await manner(client)
        except* (FaultError, OSError, TimeoutError) as group:
            self._faults += [f"{name}: {error!r}" for error in group.exceptions]
        finally:
            tcp.close()
            self._open -= 1
            self._visits[name] += 1
            self._bytes += client.heard

    # -- what operators do ------------------------------------------------------------

    def _make_database(self) -> None:
        with closing(sqlite3.connect(self._proxy.database)) as connection:
            connection.execute(
                "CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, "
                "port INTEGER, healthy INTEGER, weight INTEGER, soft_limit INTEGER, "
                "hard_limit INTEGER, deleted INTEGER DEFAULT 0)"
            )
            self._insert(connection)
        self._sound.write_bytes(self._proxy.database.read_bytes())

    def _insert(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO backends VALUES (?, 'myapp', 'sa', ?, ?, 1, 2, 50, 0, 0)",
            [(each.id, *each.address) for each in self._backends],
        )
        connection.commit()

    async def _edit(self) -> None:
        """Do what operators do, and what happens to them, until the storm is over."""
        dice = random.Random(self._seed)
        deeds = (self._use_commands, self._use_sql, self._restore, self._hang_up)
        for turn in itertools.count():
            if self._over:
                break
            deed = dice.choice((*deeds, *deeds, self._damage, self._kill_backend))
            if turn % 8 == 7:
                deed = self._damage
            self._edits[deed.__name__.strip("_")] += 1
            await deed(dice)
            await asyncio.sleep(EDIT_PAUSE_SECS)

    def _touchable(self, dice: random.Random) -> Backend:
        return dice.choice(self._backends[1:])  # the first one always serves

    async def _use_commands(self, dice: random.Random) -> None:
        node = self._touchable(dice).id
        words = dice.choice(
            (
                ("disable", node),
                ("enable", node),
                ("remove", node),
                ("delete", node),
                ("weight", node, str(dice.randint(0, 5))),
                ("limits", node, "10", str(dice.randint(1, 40))),
            )
        )
        await self._proxy.command("node", *words)

    async def _use_sql(self, dice: random.Random) -> None:
        change = dice.choice(("healthy = 1 - healthy", "deleted = 1 - deleted", "weight = 3"))
        with closing(sqlite3.connect(self._proxy.database)) as connection:
            connection.execute(
                f"UPDATE backends SET {change} WHERE id = ?", (self._touchable(dice).id,)
            )
            connection.commit()

    async def _restore(self, _dice: random.Random) -> None:
        with closing(sqlite3.connect(self._proxy.database)) as connection:
            self._insert(connection)

    async def _hang_up(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 5)):
            self._proxy.send(signal.SIGHUP)

    async def _damage(self, dice: random.Random) -> None:
        """Overwrite the database, or take it away; then put a sound one into its place."""
        database = self._proxy.database
        if dice.random() < 0.5:
            with database.open("r+b") as file:
                file.write(dice.randbytes(database.stat().st_size))
        else:
            database.unlink()
        self._proxy.send(signal.SIGHUP)
        await asyncio.sleep(EDIT_PAUSE_SECS)
        new = database.with_suffix(".new")
        new.write_bytes(self._sound.read_bytes())
        new.replace(database)
        self._proxy.send(signal.SIGHUP)

    async def _kill_backend(self, dice: random.Random) -> None:
        """Refuse connections for a while."""
        backend = self._touchable(dice)
        await backend.stop()
        await asyncio.sleep(EDIT_PAUSE_SECS)
        backend.start()

    # -- what is to be seen -----------------------------------------------------------

    async def _sample(self) -> None:
        """Look at the memory two hundred times."""
        while not self._over:
            self._samples.append((time.monotonic(), self._proxy.memory_mb()))
            await asyncio.sleep(self._secs / 200)

    def _tell_of_clients(self) -> None:
        """Report what clients saw, and that they had reason to."""
        for fault in self._faults[:10]:
            print(f"{self.report.engine}: {fault}", file=sys.stderr)
        note = self.report.note
        note("clients", self._visits.total(), is_good=set(self._visits) == _names(MANNERS))
        note("GB checked", f"{self._bytes / 1e9:.2f}", is_good=self._bytes > 0)
        note("wrong, short, refused, late", len(self._faults), is_good=not self._faults)
        note("edits, faults and signals", self._edits.total(), is_good="damage" in self._edits)
        note("tables published", len(self._proxy.seen("table_published")))

    def _tell_of_descriptors(self, sockets: int, early: Counter[str], late: Counter[str]) -> None:
        note = self.report.note
        left = (late["socket"] - sockets) / 2
        note("sessions left", f"{left:g}", is_good=left == 0)
        pipes_limit = PIPES_PER_THREAD * len(os.sched_getaffinity(0))
        others = [each.total() - each["pipe"] for each in (early, late)]
        note(
            "descriptors, pooled pipes apart",
            f"{others[0]} -> {others[1]}",
            is_good=others[1] <= others[0] + DATABASE_DESCRIPTORS,
        )
        note("descriptors of pooled pipes", late["pipe"], is_good=late["pipe"] <= pipes_limit)

    def _tell_of_memory(self, began: float) -> None:
        """Compare the second quarter with the last."""
        second, last = (
            statistics.median(
                memory
                for at, memory in self._samples
                if self._secs * quarter <= at - began < self._secs * (quarter + 0.25)
            )
            for quarter in (0.25, 0.75)
        )
        limit = second * (1 + MEMORY_GROWTH) + MEMORY_SLACK_MB
        value = f"{second:.1f} -> {last:.1f} MB"
        self.report.note("memory, 2nd and last quarter", value, is_good=last <= limit)

    async def _stop(self) -> None:
        """Ask the proxy to stop while transfers are open, and read its last words."""
        before = len(self._faults)
        dice = random.Random(self._seed)
        last = [
            asyncio.create_task(self._visit(long_transfer, random.Random(dice.random())))
            for _ in range(LAST_CLIENTS)
        ]
        await asyncio.sleep(0.5)
        self._proxy.send(signal.SIGTERM)
        await asyncio.gather(*last)
        code = await self._proxy.exit_code(SHUTDOWN_SECS + 10)
        for fault in self._faults[before:][:10]:
            print(f"{self.report.engine}, drained: {fault}", file=sys.stderr)
        note = self.report.note
        drained = f"{LAST_CLIENTS - len(self._faults) + before} of {LAST_CLIENTS}"
        note("transfers drained", drained, is_good=len(self._faults) == before)
        (told,) = self._proxy.seen("draining") or [{}]
        note("draining, as it says", told.get("connections"), is_good=bool(told.get("connections")))
        (told,) = self._proxy.seen("stopped") or [{}]
        for name in ("cut", "still_active"):
            note(f"{name}, as it says", told.get(name), is_good=told.get(name) == 0)
        accepted, closed = told.get("accepted"), told.get("closed")
        note("accepted and closed", f"{accepted} {closed}", is_good=accepted == closed)
        errors = [each for each in self._proxy.events if each["level"] == "error"]
        for line in [*errors, *self._proxy.foreign][:10]:
            print(f"{self.report.engine}: {line}", file=sys.stderr)
        errors_and_foreign = len(errors) + len(self._proxy.foreign)
        note("errors in its log", errors_and_foreign, is_good=not errors_and_foreign)
        note("exit code", code, is_good=code == 0)


def _names(manners: dict[Manner, int]) -> set[str]:
    return {getattr(manner, "__name__", "") for manner in manners}


# -- the program ------------------------------------------------------------------------


def _print(reports: list[Report]) -> None:
    print(f"\n{'':34}" + "".join(f"{report.engine:>26}" for report in reports))
    for question in reports[0].rows:
        cells = []
        for report in reports:
            value, is_good = report.rows[question]
            cells.append(f"{value if is_good else 'WRONG: ' + value:>26}")
        print(f"{question:34}" + "".join(cells))
    print(f"\n{'all well' if all(report.is_good for report in reports) else 'NOT all well'}")


def main() -> int:
    """Run a storm on each engine; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--secs", type=float, default=600, help="in all (%(default)s)")
    parser.add_argument("--engine", choices=("native", "portable"), help="both by default")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    engines = [arguments.engine] if arguments.engine else ["portable", "native"]
    if "native" in engines and native_engine() is None:
        print("the native engine is not built here", file=sys.stderr)
        if arguments.engine:
            return 2
        engines.remove("native")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reports = []
    for engine in engines:
        secs = arguments.secs / len(engines)
        print(f"{engine}: {secs:g} s, seed {arguments.seed}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            storm = Storm(Path(folder), engine, secs, arguments.seed)
            reports.append(asyncio.run(storm.run()))
    _print(reports)
    return 0 if all(report.is_good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
