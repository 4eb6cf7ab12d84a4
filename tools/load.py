"""A proxy under load: a tiny backend, a real `edgeproxy serve`, and wrk, all on loopback.

`python -m tools.load` is the backend. It prints the port it listens on, answers every request
with two bytes over HTTP, and ends when its stdin does. A request is whatever one read brings.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOADS = ("connections", "messages")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok"
CLOSE = b"Connection: close\r\n"


@contextmanager
def loaded_proxy(folder: Path, load: str, *, clients: int, threads: int) -> Iterator[int]:
    """Give the process id of a proxy under one of `LOADS`; print what the clients saw at last.

    Where there are two CPUs, the proxy has one to itself.
    """
    cpus = sorted(os.sched_getaffinity(0))
    own, others = ({cpus[0]}, set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))
    with (
        _backend(others) as backend_port,
        _proxy(folder, backend_port, threads, own) as (process, port),
        _wrk(port, load, clients, others),
    ):
        yield process


@contextmanager
def _backend(cpus: set[int]) -> Iterator[int]:
    """Run a backend on these CPUs and give its port."""
    command = [sys.executable, "-m", "tools.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        os.sched_setaffinity(process.pid, cpus)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


@contextmanager
def _proxy(
    folder: Path, backend_port: int, threads: int, cpus: set[int]
) -> Iterator[tuple[int, int]]:
    """Run a proxy in front of that backend and give its process id and its port."""
    environ = {key: text for key, text in os.environ.items() if not key.startswith("EDGEPROXY_")}
    environ |= {
        "EDGEPROXY_DB_PATH": str(folder / "routing.db"),
        "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
        "EDGEPROXY_ENGINE": "native",
        "EDGEPROXY_LOG_FORMAT": "json",
        "EDGEPROXY_BYTE_THREADS": str(threads),
    }
    edgeproxy = [sys.executable, "-m", "edgeproxy"]
    for command in (
        ["db", "init"],
        ["node", "add", "tiny", "sa", "127.0.0.1", str(backend_port)],
        ["node", "limits", "tiny", "100000", "0"],
    ):
        subprocess.run([*edgeproxy, *command], env=environ, check=True, stdout=subprocess.DEVNULL)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*edgeproxy, "serve"], env=environ, stderr=log) as process,
    ):
        os.sched_setaffinity(process.pid, cpus)
        try:
            yield process.pid, _port_when_ready(process, folder / "log")
        finally:
            process.terminate()


def _port_when_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return where a proxy listens, once it does."""
    while True:
        if ready := re.search(r'"event": ?"ready".*?"listen": ?"[^"]*:(\d+)"', log.read_text()):
            return int(ready[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(f"the proxy did not start:\n{log.read_text()}")


@contextmanager
def _wrk(port: int, load: str, clients: int, cpus: set[int]) -> Iterator[None]:
    """Send requests, until it is no longer needed."""
    header = ("-H", "Connection: close") if load == "connections" else ()
    command = ["wrk", "-t1", f"-c{clients}", "-d1h", *header, f"http://127.0.0.1:{port}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, cpus)
        assert process.stdout is not None
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)  # it then says what it has seen
            told = process.stdout.read()
    print(
        "\nload: " + "; ".join(re.findall(r"Requests/sec.*|\d+ requests in.*|Socket err.*", told))
    )


def serve() -> None:
    """Answer until stdin ends."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for number, _ in epoll.poll():
            if client := clients.get(number):
                if not _goes_on(client):
                    clients.pop(number).close()
            elif number == listening.fileno():
                while client := _accepted(listening):
                    clients[client.fileno()] = client
                    epoll.register(client, select.EPOLLIN)
            elif not os.read(number, 1024):
                return


def _accepted(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except BlockingIOError:
        return None


def _goes_on(client: socket.socket) -> bool:
    """Answer what a client says; return whether it may say more."""
    try:
        said = client.recv(4096)
        goes_on = said != b"" and CLOSE not in said
        if said:
            client.sendall(ANSWER % (b"" if goes_on else CLOSE))
    except OSError:
        return False
    return goes_on


if __name__ == "__main__":
    serve()
