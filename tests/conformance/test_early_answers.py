"""A backend that says much at once, before its client reads: nothing may be forgotten of it.

On one CPU, whoever is woken by the backend's first bytes runs at once, in the middle of what the
gate thread was about to do.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.conformance.gates import ScriptedGate
from tests.conformance.peers import CHUNK
from tests.conformance.rig import Rig

CLIENTS = 300
SIZE = 256 * 1024
SMALL_BUFFER = 16 * 1024


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Let everything of this process run on one CPU."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.mark.usefixtures("one_cpu")
def test_all_that_a_backend_says_at_once_arrives(rig: Rig) -> None:
    server = rig.keep(socket.create_server(("127.0.0.1", 0), backlog=1024))

    def speak() -> None:
        for _ in range(CLIENTS):
            backend, _ = server.accept()
            threading.Thread(target=_say_all, args=(backend,)).start()

    rig.prepare(ScriptedGate(server.getsockname()))
    rig.listen(buffer=SMALL_BUFFER)
    rig.start()
    speaking = threading.Thread(target=speak)
    speaking.start()
    for _ in range(CLIENTS):
        client = rig.connect(buffer=SMALL_BUFFER)
        heard = 0
        while part := client.sock.recv(CHUNK):
            heard += len(part)
        client.close()
        assert heard == SIZE
    speaking.join()


def _say_all(backend: socket.socket) -> None:
    backend.sendall(bytes(SIZE))
    backend.close()
