"""Out of file descriptors, clients wait instead of being turned away, and are served later."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.engines import MakeEngine
from tests.conformance.peers import Backend, Peer

ROOT = Path(__file__).parents[2]

CLIENTS = 60
SPARE = 40
"""Descriptors that the engine may open; a session needs at least two."""


class _Program:
    """A running `few_descriptors`."""

    def __init__(self, kind: str, backend: Backend) -> None:
        module = "tests.conformance.few_descriptors"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, kind, str(backend.address[1]), str(SPARE)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def port(self) -> int:
        """Wait until it listens; return where. To be called once, first."""
        port: int = self._read()["port"]
        return port

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program has ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def look(self) -> dict[str, Any]:
        """Let it look at itself for one second."""
        assert self._process.stdin is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        return self._read()

    def finish(self) -> tuple[dict[str, Any], list[str]]:
        """Return what its gate was told, and its log."""
        told, logged = self._process.communicate("", timeout=20)
        assert self._process.returncode == 0, logged
        return json.loads(told), logged.splitlines()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def _running(kind: str) -> Iterator[tuple[_Program, int, Backend, list[Peer]]]:
    opened: list[Peer] = []
    backend = Backend()
    program = _Program(kind, backend)
    try:
        yield program, program.port(), backend, opened
    finally:
        program.kill()
        for peer in opened:
            peer.close()
        backend.close()


def test_clients_wait_for_descriptors_and_are_all_served(engine: tuple[str, MakeEngine]) -> None:
    with _running(engine[0]) as (program, port, backend, opened):
        clients = {}
        for index in range(CLIENTS):
            client = Peer(socket.create_connection(("127.0.0.1", port)))
            opened.append(client)
            client.send(index.to_bytes(1, "big"))
            clients[index] = client
        first = _accept_waiting(backend, opened)
        assert 5 <= len(first) <= SPARE // 2

        assert program.look()["busy_secs"] < 0.3
        assert not backend.has_waiting()

        served = 0
        servers = first
        while servers:
            for server in servers:
                client = clients.pop(server.receive(1)[0])
                server.send(b"served")
                assert client.receive(6) == b"served"
                client.close()
                server.close()
                served += 1
            servers = _accept_waiting(backend, opened)
        assert served == CLIENTS
        assert clients == {}

        told, logged = program.finish()
        assert told["tickets"] >= CLIENTS
        assert told["crashes"] == []
        assert 1 <= len(logged) <= 10, "\n".join(logged)


def _accept_waiting(backend: Backend, opened: list[Peer]) -> list[Peer]:
    """Accept until nobody comes for a while."""
    accepted = []
    while backend.has_waiting(0.6):
        accepted.append(backend.accept())
    opened.extend(accepted)
    return accepted


def test_bulk_transfers_need_no_descriptors_that_are_not_there(
    engine: tuple[str, MakeEngine],
) -> None:
    """Whatever an engine opens to be fast, it has to be able to do without."""
    with _running(engine[0]) as (_, port, backend, opened):
        data = bytes(range(256)) * 4096
        clients = [Peer(socket.create_connection(("127.0.0.1", port))) for _ in range(30)]
        opened.extend(clients)
        servers = _accept_waiting(backend, opened)
        assert servers
        for server in servers:
            server.send(data)
            server.close()
        for client in clients[: len(servers)]:
            assert client.receive(len(data)) == data
