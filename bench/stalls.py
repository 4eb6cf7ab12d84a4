"""Measures by how long clients are held up while a proxy does what takes long.

    ./task bench-stalls                        # -- --engine portable, --bindings 262144, --help

A client comes once a millisecond, whatever happens to the one before, and waits for the first byte
of a backend. Its time counts from when it was due, so a standstill counts for all who come during
it. Meanwhile, phase by phase: nothing; 32 readers who ask for explanations, sessions, status and
metrics without a pause; edits of a large table, each of which publishes a new table and frees an
old one. With `--bindings` so many clients are bound before that, and the last phase lasts until
the sweep has removed them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import select
import selectors
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.process import Process
from tests.ports import free_port

INTERVAL_SECS = 0.001
TIMEOUT_SECS = 60.0
READERS = 32
PIECE_BYTES = 1 << 20
EDIT_PAUSE_SECS = 0.5
NICE = 19
"""Readers yield to the clients, whose times are measured on the same processors."""
FILLERS = 16
SWEEP_SECS = 60.0
START_SECS = 120.0
"""A large table, on a host that is busy."""

ROWS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO backends SELECT 'far-' || i, 'bench', 'eu', '127.0.0.9', 1, 1, 1, 50, 100, 0 FROM n
"""
NEAR = "INSERT INTO backends VALUES ('near', 'bench', 'sa', '127.0.0.1', ?, 1, 1, 0, 0, 0)"


def serve_backend(listening: socket.socket) -> None:
    """Say one byte to whoever connects, until it closes."""
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    listening.setblocking(False)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                try:
                    client = listening.accept()[0]
                except BlockingIOError:
                    continue
                client.send(b"!")
                selector.register(client, selectors.EVENT_READ)
            else:
                assert isinstance(key.fileobj, socket.socket)
                selector.unregister(key.fileobj)
                key.fileobj.close()


def begin_visit(port: int, number: int) -> socket.socket:
    """Connect as a client with an address of its own, for whom a backend has a first byte."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    client = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS)
    client.sendall(f"PROXY TCP4 {address} 192.0.2.1 1 1\r\n".encode())
    return client


def end_visit(client: socket.socket) -> None:
    """Wait for the first byte, and leave."""
    with client:
        if client.recv(1) != b"!":
            raise ConnectionError("the proxy closed a connection without an answer")


def probe(port: int, secs: float, number: int) -> dict[str, float]:
    """Return how long clients had to wait who came once a millisecond, in milliseconds."""
    times_ms: list[float] = []
    began_at = time.perf_counter()
    waiting: dict[socket.socket, float] = {}
    turns = int(secs / INTERVAL_SECS)
    turn = 0
    while turn < turns or waiting:
        due_at = began_at + turn * INTERVAL_SECS
        left_secs = due_at - time.perf_counter() if turn < turns else TIMEOUT_SECS
        if left_secs < -secs:
            raise TimeoutError("more clients wait than this program can be")
        if left_secs <= 0:
            waiting[begin_visit(port, number + turn % 1000)] = due_at
            turn += 1
            left_secs = 0
        for client in select.select(waiting, (), (), left_secs)[0]:
            end_visit(client)
            times_ms.append((time.perf_counter() - waiting.pop(client)) * 1000)
    cuts = statistics.quantiles(times_ms, n=1000)
    return {
        "p50": cuts[499],
        "p99": cuts[989],
        "p99.9": cuts[998],
        "max": max(times_ms),
    }


def read_all(opened: socket.socket, request: str, buffer: bytearray) -> int:
    """Return the status of an answer after reading all of it."""
    opened.settimeout(TIMEOUT_SECS)
    opened.sendall(f"GET {request} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n".encode())
    count = opened.recv_into(buffer)
    status = int(bytes(buffer[:12]).split()[1]) if count >= 12 else 0
    while opened.recv_into(buffer):
        pass
    return status


class Reader:
    """One kind of question, to one address."""

    def __init__(self, name: str, address: tuple[str, int] | str, request: str) -> None:
        self.name = name
        self._address = address
        self._request = request

    def ask(self, buffer: bytearray) -> int:
        """Return the status of the answer, 0 if there was none."""
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as opened:
            opened.settimeout(TIMEOUT_SECS)
            try:
                opened.connect(self._address)
                return read_all(opened, self._request, buffer)
            except OSError:
                return 0


def read_without_end(readers: list[Reader], told: multiprocessing.connection.Connection) -> None:
    """Be so many readers, until something is told; then say what they got."""
    os.nice(NICE)
    got: Counter[str] = Counter()
    over = threading.Event()

    def run(reader: Reader) -> None:
        buffer = bytearray(PIECE_BYTES)
        while not over.is_set():
            status = reader.ask(buffer)
            got[f"{reader.name} {status or 'none'}"] += 1

    for number in range(READERS):
        reader = readers[number % len(readers)]
        threading.Thread(target=run, args=(reader,), daemon=True).start()
    told.recv()
    over.set()
    told.send(dict(got))


@contextmanager
def reading(readers: list[Reader]) -> Iterator[None]:
    """Let readers ask meanwhile, and print what they got."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=read_without_end, args=(readers, there), daemon=True)
    process.start()
    yield
    here.send("stop")
    print(f"  {json.dumps(here.recv(), sort_keys=True)}", flush=True)
    process.kill()
    process.join()


@contextmanager
def editing(path: Path) -> Iterator[None]:
    """Edit one row of the table again and again meanwhile."""
    over = threading.Event()

    def run() -> None:
        with sqlite3.connect(path, timeout=TIMEOUT_SECS) as connection:
            for weight in itertools.cycle((2, 3)):
                if over.wait(EDIT_PAUSE_SECS):
                    return
                connection.execute("UPDATE backends SET weight = ? WHERE id = 'far-1'", (weight,))
                connection.commit()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()


@contextmanager
def quiet() -> Iterator[None]:
    """Do nothing meanwhile."""
    yield


def fill(port: int, count: int) -> None:
    """Bind so many clients."""

    def some(first: int) -> None:
        for number in range(first, count, FILLERS):
            end_visit(begin_visit(port, 100_000 + number))

    threads = [threading.Thread(target=some, args=(first,)) for first in range(FILLERS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def in_process(function: Callable[..., object], *arguments: object) -> None:
    """Run a function in a process of its own, and wait."""
    process = multiprocessing.Process(target=function, args=arguments, daemon=True)
    process.start()
    process.join()


class Measured:
    """A proxy with so many rows, and what is asked of it."""

    def __init__(self, rows: int, backend_port: int, wanted: argparse.Namespace) -> None:
        self._rows = rows
        self._wanted = wanted
        self._backend_port = backend_port
        self._folder = Path(tempfile.mkdtemp())
        self.port, self._api_port, self._metrics_port = free_port(), free_port(), free_port()
        self.database = self._folder / "routing.db"

    @property
    def readers(self) -> list[Reader]:
        """One of each kind."""
        api, control = ("127.0.0.1", self._api_port), str(self._folder / "control")
        return [
            Reader("explain", api, "/api/v1/explain?client=10.0.0.1"),
            Reader("sessions", api, "/api/v1/sessions"),
            Reader("status", control, "/status"),
            Reader("metrics", ("127.0.0.1", self._metrics_port), "/metrics"),
        ]

    def start(self) -> Process:
        """Start the proxy."""
        program = str(Path(sys.executable).with_name("edgeproxy"))
        environ = {
            "EDGEPROXY_ENGINE": self._wanted.engine,
            "EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "EDGEPROXY_DB_PATH": str(self.database),
            "EDGEPROXY_DB_RELOAD_SECS": "0.2",
            "EDGEPROXY_PROXY_PROTOCOL_IN": "127.0.0.0/8",
            "EDGEPROXY_BINDING_TTL_SECS": str(SWEEP_SECS),
            "EDGEPROXY_API_ENABLED": "true",
            "EDGEPROXY_API_LISTEN_ADDR": f"127.0.0.1:{self._api_port}",
            "EDGEPROXY_METRICS_ENABLED": "true",
            "EDGEPROXY_METRICS_LISTEN_ADDR": f"127.0.0.1:{self._metrics_port}",
            "EDGEPROXY_CONTROL_SOCKET": str(self._folder / "control"),
        }
        init = [program, "db", "init"]
        subprocess.run(init, env={**os.environ, **environ}, check=True, stdout=subprocess.DEVNULL)
        with sqlite3.connect(self.database) as connection:
            connection.execute(ROWS, (self._rows,))
            connection.execute(NEAR, (self._backend_port,))
        cpus = os.sched_getaffinity(0)
        process = Process([program, "serve"], cpus, self._folder / "log", environ)
        for port in (self.port, self._api_port, self._metrics_port):
            process.wait_until_it_accepts(port, START_SECS)
        for reader in self.readers:  # connections are taken before all is ready to answer them
            reader.ask(bytearray(PIECE_BYTES))
        end_visit(begin_visit(self.port, 0))
        return process

    def is_wanted(self, name: str) -> bool:
        """Return whether a phase is to be measured."""
        return not self._wanted.only or name in self._wanted.only

    def phase(self, name: str, meanwhile: AbstractContextManager[None], secs: float = 0.0) -> None:
        """Measure clients during one phase, and print their times."""
        if not self.is_wanted(name):
            return
        secs = secs or self._wanted.secs
        here, there = multiprocessing.Pipe()

        def run() -> None:
            there.send(probe(self.port, secs, 0))

        with meanwhile:
            in_process(run)
        figures = here.recv() if here.poll() else {}
        shown = "  ".join(f"{key} {value:8.2f}" for key, value in figures.items())
        print(f"{self._rows:>7} rows  {name:<8} {shown} ms", flush=True)


def one_page(measured: Measured, process: Process) -> None:
    """Print what a page of each kind costs."""
    for reader in measured.readers:
        signal.sigtimedwait([], 2.0)
        spent_secs, begun = process.cpu_secs(), time.perf_counter()
        status = reader.ask(bytearray(PIECE_BYTES))
        took_secs = time.perf_counter() - begun
        spent_secs = process.cpu_secs() - spent_secs
        print(f"  one {reader.name}: {status}, {spent_secs:.2f} s of CPU, {took_secs:.2f} s")


def main() -> int:
    """Measure phase by phase."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", default="native", choices=("native", "portable"))
    parser.add_argument("--rows", type=int, default=100_000, help="of the table that is edited")
    parser.add_argument("--read-rows", type=int, default=20_000, help="of the table that is read")
    parser.add_argument("--bindings", type=int, default=0, help="clients to bind first")
    parser.add_argument("--secs", type=float, default=15.0, help="how long a phase takes")
    parser.add_argument("--only", metavar="NAME", nargs="*", help="phases: readers, edits, …")
    wanted = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    backend = multiprocessing.Process(target=serve_backend, args=(listening,), daemon=True)
    backend.start()
    backend_port = listening.getsockname()[1]
    if wanted.read_rows:
        measured = Measured(wanted.read_rows, backend_port, wanted)
        with measured.start() as process:
            if measured.is_wanted("pages"):
                one_page(measured, process)
            measured.phase("quiet", quiet())
            measured.phase("readers", reading(measured.readers))
            for reader in measured.readers:
                measured.phase(reader.name, reading([reader]))
    if wanted.rows:
        measured = Measured(wanted.rows, backend_port, wanted)
        with measured.start():
            if wanted.bindings:
                in_process(fill, measured.port, wanted.bindings)
            measured.phase("quiet", quiet())
            measured.phase("edits", editing(measured.database))
            if wanted.bindings:
                measured.phase("sweep", quiet(), SWEEP_SECS + 5)
    backend.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
