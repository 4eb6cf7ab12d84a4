"""Clients that no well-known tool offers: many that stay idle, and some at a steady rate.

As a program (`python -m bench.clients PORT SECS`) it opens connections at a steady rate, times
each from connecting to the first byte of an answer, exchanges small messages on a few open
ones beside that, and prints the percentiles of both as JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import sys
import time
from contextlib import ExitStack

REQUEST = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
CONNECTIONS_PER_SEC = 300
OPEN_CONNECTIONS = 4
BATCH = 100
TIMEOUT_SECS = 20.0


class Sink:
    """A backend that accepts and keeps quiet, inside this process."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("0.0.0.0", 0), backlog=4096)
        self._listening.settimeout(TIMEOUT_SECS)
        self._accepted: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]

    def accept(self, count: int) -> None:
        """Accept so many connections. Raises TimeoutError."""
        for _ in range(count):
            self._accepted.append(self._listening.accept()[0])

    def drain(self) -> None:
        """Forget the connections that have been accepted."""
        while self._accepted:
            self._accepted.pop().close()

    def close(self) -> None:
        """Stop listening."""
        self.drain()
        self._listening.close()


def idle_connections(port: int, sink: Sink, count: int) -> ExitStack:
    """Open connections through a proxy to the sink. They are closed with the result."""
    opened = ExitStack()
    for _ in range(0, count, BATCH):
        for _ in range(BATCH):
            client = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS)
            opened.callback(client.close)
        sink.accept(BATCH)
    opened.callback(sink.drain)
    return opened


def _ask(client: socket.socket) -> None:
    client.sendall(REQUEST)
    if not client.recv(4096):
        raise ConnectionError("the proxy closed a connection without an answer")


def _percentiles(times_secs: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times_secs, n=100)
    return {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6, "max_us": max(times_secs) * 1e6}


def probe(port: int, secs: float) -> dict[str, dict[str, float]]:
    """Measure new connections and messages on open ones, at a rate that loads nothing."""
    connects, messages = [], []
    began_at = time.perf_counter()
    with ExitStack() as opened:
        held = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS))
            for _ in range(OPEN_CONNECTIONS)
        ]
        for client in held:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(int(secs * CONNECTIONS_PER_SEC)):
            wait_secs = began_at + number / CONNECTIONS_PER_SEC - time.perf_counter()
            if wait_secs > 0:
                signal.sigtimedwait([], wait_secs)
            at = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS) as client:
                _ask(client)
                connects.append(time.perf_counter() - at)
            at = time.perf_counter()
            _ask(held[number % OPEN_CONNECTIONS])
            messages.append(time.perf_counter() - at)
    return {"connect": _percentiles(connects), "message": _percentiles(messages)}


if __name__ == "__main__":
    print(json.dumps(probe(int(sys.argv[1]), float(sys.argv[2]))))
