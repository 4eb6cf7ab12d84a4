"""What is measured. Each measure takes one sample of one proxy: figures by name.

Processor time is that of the proxy alone. Load and backends run on another CPU where there
are two; nothing of what they spend is counted.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import load, tls
from bench.clients import REQUEST, Sink, idle_connections
from bench.figures import Bench, Figures, bulk_figures, message_figures
from bench.process import Process, pinned, python
from bench.report import DIRECT
from bench.subjects import MAX_CONNECTIONS, Subject

WARM_UP_SECS = 0.5
SETTLE_SECS = 1.0
MANY_ROWS = 10_000
REBUILD_PAUSE_SECS = 0.02
QUICK_TABLE = {"EDGEPROXY_DB_RELOAD_SECS": "0.05"}


@dataclass(frozen=True)
class Measure:
    """One row of the table of measures.

    Attributes:
        name: As in the tables.
        about: One line for people.
        subjects: Names of the proxies that it is taken of; all if empty.
        direct: Whether it is also taken without a proxy.
        sample: Takes one.
    """

    name: str
    about: str
    sample: Callable[[Bench, Subject], Figures]
    subjects: tuple[str, ...] = ()
    direct: bool = False

    def takes(self, subject: str) -> bool:
        """Return whether it is taken of this proxy."""
        return self.direct if subject == DIRECT else not self.subjects or subject in self.subjects


OURS = ("edgeproxy", "portable")


# -- connections and small messages -----------------------------------------------------------


def _small(connections: int, *, close: bool) -> Callable[[Bench, Subject], Figures]:
    def sample(bench: Bench, subject: Subject) -> Figures:
        with (
            load.small_backend(bench.load_cpus, bench.folder) as backend,
            subject.running(backend, bench.proxy_cpus, bench.folder) as (process, port),
        ):
            _warm_up(bench, port)
            spent_secs = process.cpu_secs()
            seen = bench.exchange(port, connections, close=close)
            spent_secs = process.cpu_secs() - spent_secs
        return message_figures(seen, spent_secs)

    return sample


def _warm_up(bench: Bench, port: int) -> None:
    bench.exchange(port, 4, close=True, secs=WARM_UP_SECS)


# -- bulk -------------------------------------------------------------------------------------


def _bulk(streams: int, *, download: bool) -> Callable[[Bench, Subject], Figures]:
    def sample(bench: Bench, subject: Subject) -> Figures:
        with (
            load.bulk_backend(bench.load_cpus, bench.folder) as backend,
            subject.running(backend, bench.proxy_cpus, bench.folder) as (process, port),
        ):
            spent_secs = process.cpu_secs()
            carried = load.bulk(
                port, bench.load_cpus, streams=streams, secs=bench.secs, download=download
            )
            spent_secs = process.cpu_secs() - spent_secs
        return bulk_figures(carried, spent_secs)

    return sample


def _mixed(bench: Bench, subject: Subject) -> Figures:
    """Small messages on 16 connections while 4 streams carry bulk, at the same rate for all."""
    with (
        load.small_backend(bench.load_cpus, bench.folder) as backend,
        subject.running(backend, bench.proxy_cpus, bench.folder) as (process, port),
        ThreadPoolExecutor(1) as beside,
    ):
        _warm_up(bench, port)
        streams = beside.submit(
            load.small,
            port,
            bench.load_cpus,
            bench.folder,
            connections=4,
            secs=bench.secs + 2,
            path=load.STREAM_PATH,
        )
        signal.sigtimedwait([], WARM_UP_SECS)
        spent_secs = process.cpu_secs()
        seen = bench.exchange(port, 16, close=False)
        spent_secs = process.cpu_secs() - spent_secs
        streams.result()
    return {
        "per_sec": seen.requests / seen.secs,
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
        "cpu_share": spent_secs / seen.secs,
    }


# -- memory, start ----------------------------------------------------------------------------


def _idle(wanted: int) -> Callable[[Bench, Subject], Figures]:
    count = min(wanted, MAX_CONNECTIONS // 1000 * 1000)  # as the limit of open files allows

    def sample(bench: Bench, subject: Subject) -> Figures:
        sink = Sink()
        try:
            with subject.running(sink.port, bench.proxy_cpus, bench.folder) as (process, port):
                with idle_connections(port, sink, 100):
                    pass
                signal.sigtimedwait([], SETTLE_SECS)  # edgeproxy goes on loading after `ready`
                before = process.resident_bytes()
                with idle_connections(port, sink, count):
                    held = process.resident_bytes() - before
                    spent_secs = process.cpu_secs()
                    signal.sigtimedwait([], 1.0)
                    spent_secs = process.cpu_secs() - spent_secs
        finally:
            sink.close()
        return {
            "mb_per_1000": held / 1e6 / (count / 1000),
            "cpu_ms_per_sec": spent_secs * 1e3,
            "connections": count,
        }

    return sample


def _cold_start(bench: Bench, subject: Subject) -> Figures:
    """From exec to the first answer, and what Python alone needs to start and end."""
    with (
        load.small_backend(bench.load_cpus, bench.folder) as backend,
        subject.running(backend, bench.all_cpus, bench.folder) as (process, port),
    ):
        served_secs = _first_answer(process, port)
    began_at = time.monotonic()
    subprocess.run(python("-c", "pass"), check=True)
    return {"ms": served_secs * 1e3, "python_ms": (time.monotonic() - began_at) * 1e3}


def _first_answer(process: Process, port: int) -> float:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(REQUEST)
        client.recv(1)
    return time.monotonic() - process.began_at


# -- edgeproxy against itself ---------------------------------------------------------------------


def _threads(bench: Bench, subject: Subject) -> Figures:
    """One byte thread and two, both on all CPUs, which load and backend share."""
    figures: Figures = {}
    for threads in (1, 2):
        with (
            load.small_backend(bench.all_cpus, bench.folder) as backend,
            subject.running(backend, bench.all_cpus, bench.folder, threads=threads) as (
                process,
                port,
            ),
        ):
            _warm_up(bench, port)
            spent_secs = process.cpu_secs()
            seen = load.small(port, bench.all_cpus, bench.folder, connections=64, secs=bench.secs)
            spent_secs = process.cpu_secs() - spent_secs
            figures[f"per_sec_{threads}"] = seen.requests / seen.secs
            figures[f"cpu_us_{threads}"] = spent_secs / max(seen.requests, 1) * 1e6
    return figures | {"ratio": figures["per_sec_2"] / figures["per_sec_1"]}


def _many_backends(bench: Bench, subject: Subject) -> Figures:
    """New connections, every one of them decided anew, with few and many backends."""
    figures: Figures = {}
    with load.small_backend(bench.load_cpus, bench.folder) as backend:
        for backends in (10, 1000, MANY_ROWS):
            with subject.running(
                backend,
                bench.proxy_cpus,
                bench.folder,
                backends=backends,
                environ={"EDGEPROXY_BINDING_TTL_SECS": "0"},
            ) as (_, port):
                _warm_up(bench, port)
                seen = bench.exchange(port, 64, close=True)
                figures[f"per_sec_{backends}"] = seen.requests / seen.secs
    few = figures["per_sec_10"]
    return figures | {
        "ratio_1000": figures["per_sec_1000"] / few,
        "ratio_10000": figures[f"per_sec_{MANY_ROWS}"] / few,
    }


def _busy(bench: Bench, subject: Subject) -> Figures:
    """Connections and messages at a steady rate, while a large table is rebuilt all the time."""
    with (
        load.small_backend(bench.load_cpus, bench.folder) as backend,
        subject.running(
            backend, bench.proxy_cpus, bench.folder, backends=MANY_ROWS, environ=QUICK_TABLE
        ) as (process, port),
    ):
        _warm_up(bench, port)
        quiet = _probe(bench, port)
        rebuilding = threading.Event()
        with ThreadPoolExecutor(1) as beside:
            edits = beside.submit(
                _edit_without_pause, next(bench.folder.glob(f"*/{port}.db")), process, rebuilding
            )
            try:
                spent_secs, began_at = process.cpu_secs(), time.monotonic()
                busy = _probe(bench, port)
                busy_share = (process.cpu_secs() - spent_secs) / (time.monotonic() - began_at)
            finally:
                rebuilding.set()
            edits.result()
    figures: Figures = {"busy_share": busy_share}
    for kind in ("connect", "message"):
        for figure in ("p50_us", "p99_us", "max_us"):
            figures[f"{kind}_{figure}_quiet"] = quiet[kind][figure]
            figures[f"{kind}_{figure}_busy"] = busy[kind][figure]
        figures[f"{kind}_ratio"] = busy[kind]["p99_us"] / quiet[kind]["p99_us"]
    return figures


def _probe(bench: Bench, port: int) -> dict[str, dict[str, float]]:
    ran = subprocess.run(
        pinned(python("-m", "bench.clients", str(port), str(bench.secs)), bench.load_cpus),
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, float]] = json.loads(ran.stdout)
    return found


def _edit_without_pause(database: Path, process: Process, over: threading.Event) -> None:
    connection = sqlite3.connect(database, timeout=10)
    number = 0
    while not over.wait(REBUILD_PAUSE_SECS):
        number += 1
        with connection:
            connection.execute(
                "UPDATE backends SET weight = ? WHERE id = 'node-0'", (1 + number % 9,)
            )
        process.signal(signal.SIGHUP)
    connection.close()


MEASURES = (
    Measure("connect-1", "new connections, 1 at a time", _small(1, close=True), direct=True),
    Measure("connect-64", "new connections, 64 at a time", _small(64, close=True), direct=True),
    Measure("message-1", "64-byte messages on 1 connection", _small(1, close=False), direct=True),
    Measure(
        "message-64", "64-byte messages on 64 connections", _small(64, close=False), direct=True
    ),
    Measure(
        "message-1000",
        "64-byte messages on 1,000 connections",
        _small(1000, close=False),
        direct=True,
    ),
    Measure("upload-1", "bulk to the backend, 1 stream", _bulk(1, download=False)),
    Measure("upload-8", "bulk to the backend, 8 streams", _bulk(8, download=False)),
    Measure("download-1", "bulk to the client, 1 stream", _bulk(1, download=True)),
    Measure("download-8", "bulk to the client, 8 streams", _bulk(8, download=True)),
    Measure(
        "handshake-16", "TLS handshakes, 16 at a time", tls.exchanged(16, close=True), tls.PEERS
    ),
    Measure(
        "tlsmessage-64",
        "64-byte messages on 64 connections over TLS",
        tls.exchanged(64, close=False),
        tls.PEERS,
    ),
    Measure("tlsdownload-1", "bulk to the client over TLS, 1 stream", tls.downloaded, tls.PEERS),
    Measure("idle-1000", "memory of 1,000 idle connections", _idle(1000)),
    Measure("idle-10000", "memory of 10,000 idle connections", _idle(10_000)),
    Measure("mixed", "messages on 16 connections beside 4 bulk streams", _mixed),
    Measure("start", "from exec to the first answer", _cold_start),
    Measure("threads", "messages with 1 and 2 byte threads", _threads, ("edgeproxy",)),
    Measure("backends", "new connections by size of the table", _many_backends, OURS),
    Measure("busy", "while 10,000 rows are rebuilt without pause", _busy, OURS),
)
