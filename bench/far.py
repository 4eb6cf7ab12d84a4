"""Measures what connections made in advance are worth, with a backend that is far away.

    sudo ./task bench-far                  # 20 ms away
    sudo ./task bench-far -- --rtt-ms 80 --clients 200

The backend stands in a network of its own, behind a link that takes its time: two TUN devices
and a thread that carries each packet over after a pause. Every client connects, asks, and notes
when the first byte of the answer has come; once with the pool and once without, in turns.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from bench.network import CLONE_NEWNET, enter_own_loopback
from bench.process import Process, split_cpus
from tests.ports import free_port

HERE, THERE = "10.77.0.1", "10.77.0.2"
TUN = "/dev/net/tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
LARGEST_PACKET = 65536
SETTLE_SECS = 1.5
PAUSE_SECS = 0.01
"""Between one client and the next."""
TIMEOUT_SECS = 20.0


class FarAway:
    """A backend behind a slow link. It answers each request.

    Attributes:
        greeting: What it says before it is asked.
    """

    def __init__(self, rtt_secs: float) -> None:
        self._pause_secs = rtt_secs / 2
        self.greeting = b""
        near = _open_tun("near", HERE)
        opened: list[object] = []
        thread = threading.Thread(target=lambda: opened.extend(self._settle()))
        thread.start()
        thread.join()
        far, listening = opened
        assert isinstance(far, int)
        assert isinstance(listening, socket.socket)
        self.port: int = listening.getsockname()[1]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    def _settle(self) -> tuple[int, socket.socket]:
        """Set up the far end, in a network of its own. Only this thread moves there."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        return _open_tun("far", THERE), socket.create_server((THERE, 0), backlog=1024)

    def _carry(self, source: int, sink: int) -> None:
        """Carry packets over, each after the same pause."""
        under_way: deque[tuple[float, bytes]] = deque()
        while True:
            wait_secs = max(under_way[0][0] - time.monotonic(), 0) if under_way else None
            if select.select([source], [], [], wait_secs)[0]:
                packet = os.read(source, LARGEST_PACKET)
                under_way.append((time.monotonic() + self._pause_secs, packet))
            while under_way and under_way[0][0] <= time.monotonic():
                os.write(sink, under_way.popleft()[1])

    def _serve(self, listening: socket.socket) -> None:
        while True:
            client = listening.accept()[0]
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                client.sendall(self.greeting)
                while asked := client.recv(4096):
                    client.sendall(asked)
            except OSError:
                pass


def _open_tun(name: str, address: str) -> int:
    """Return a device in the network of this thread, with this address of the link's /24."""
    device = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/24", "dev", name),
        ("link", "set", name, "up"),
    ):
        subprocess.run(["ip", *words], check=True)
    return device


def first_bytes(backend: FarAway, environ: dict[str, str], clients: int, asks: bool) -> list[float]:
    """Return how long each client waited for its first byte, in seconds."""
    program = str(Path(sys.executable).with_name("edgeproxy"))
    folder = Path(tempfile.mkdtemp())
    port, database = free_port(), folder / "routing.db"
    environ = {
        "EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{port}",
        "EDGEPROXY_DB_PATH": str(database),
        "EDGEPROXY_CONFIG": "",
        "EDGEPROXY_CONTROL_SOCKET": "off",
        **environ,
    }
    subprocess.run([program, "db", "init"], env=environ, check=True, stdout=subprocess.DEVNULL)
    with sqlite3.connect(database) as connection:
        connection.execute(
            "INSERT INTO backends VALUES"
            f" ('far', 'bench', 'eu', '{THERE}', {backend.port}, 1, 1, 100, 200, 0)"
        )
    connection.close()
    times = []
    with Process([program, "serve"], split_cpus()[0], folder / "log", environ) as process:
        process.wait_until_it_accepts(port)
        signal.sigtimedwait([], SETTLE_SECS)  # for what that first client has begun
        for _ in range(clients):
            signal.sigtimedwait([], PAUSE_SECS)
            at = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS) as client:
                if asks:
                    client.sendall(b"a question")
                if not client.recv(64):
                    raise ConnectionError("the proxy closed a connection without an answer")
                times.append(time.perf_counter() - at)
    shutil.rmtree(folder)
    return times


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rtt-ms", type=float, default=20.0, help="the way there and back")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=100, help="in each round")
    arguments = parser.parse_args()
    print(enter_own_loopback())
    print(f"first byte in ms, backend {arguments.rtt_ms:g} ms away: median (99th percentile)")
    backend = FarAway(arguments.rtt_ms / 1000)
    for about, greeting in (("answers", b""), ("speaks first", b"hello")):
        backend.greeting = greeting
        times: dict[str, list[float]] = {"false": [], "true": []}
        for _ in range(arguments.rounds):
            for pool in times:
                environ = {"EDGEPROXY_POOL_ENABLED": pool}
                times[pool] += first_bytes(backend, environ, arguments.clients, not greeting)
        for pool, found in times.items():
            cuts = statistics.quantiles(found, n=100)
            what = "with the pool" if pool == "true" else "without"
            print(f"{about:14}{what:15}{cuts[49] * 1e3:8.2f} ({cuts[98] * 1e3:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
