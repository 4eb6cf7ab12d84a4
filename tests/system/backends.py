"""Real backends on loopback, run by threads of the test, that count their connections exactly."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.conformance import peers

CHUNK = 1 << 16


class Backend:
    """Greets each client with its id and a newline, then echoes until the client's end.

    Its port stays reserved from the constructor to `close`, so that it refuses while stopped
    and nobody else can answer in its place. With `resets` it resets every client at once.

    Attributes:
        total: Connections that reached it.
        most: How many it had at once, at most.
    """

    def __init__(self, backend_id: str, host: str = "127.0.0.1", *, resets: bool = False) -> None:
        self.id = backend_id
        self.host = host
        self.total = 0
        self.most = 0
        self._resets = resets
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._reservation = self._bound(0)
        self.port: int = self._reservation.getsockname()[1]
        self._listening: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._is_stopping = False

    def _bound(self, port: int) -> socket.socket:
        bound = socket.socket(self._family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.host, port))
        return bound

    @property
    def active(self) -> int:
        """How many connections it has now."""
        with self._lock:
            return len(self._open)

    def start(self) -> None:
        """Answer from now on."""
        self._is_stopping = False
        self._listening = self._bound(self.port)
        self._listening.listen(4096)
        self._run(self._accept, self._listening)

    def stop(self) -> None:
        """Die as a process does: nothing listens, every connection ends."""
        if self._listening is not None:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        with self._lock:
            self._is_stopping = True
            for client in self._open:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        if self._listening is not None:
            self._listening.close()

    def close(self) -> None:
        """Stop, and give the port back."""
        self.stop()
        self._reservation.close()

    def _run(self, function: Callable[[socket.socket], None], tcp: socket.socket) -> None:
        thread = threading.Thread(target=function, args=(tcp,), daemon=True)
        thread.start()
        self._threads.append(thread)  # not before: `stop` joins what it finds here

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return  # `stop` shut it down
            with self._lock:
                self.total += 1
                if self._resets or self._is_stopping:
                    peers.Peer(client).reset()
                    continue
                self._open.add(client)
                self.most = max(self.most, sum(not _has_left(each) for each in self._open))
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            client.sendall(f"{self.id}\n".encode())
            while part := client.recv(CHUNK):
                client.sendall(part)
        except OSError:
            pass
        finally:
            with self._lock:  # before the close: the proxy may send the next one at once
                self._open.discard(client)
            client.close()


class ManualBackend(peers.Backend):
    """A listening socket; the test accepts and serves by hand."""

    def __init__(self, backend_id: str, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self.id = backend_id
        self.host, self.port = self.address


class ServingBackend:
    """Serves each client on a thread of its own, by a function that may raise OSError."""

    def __init__(self, backend_id: str, serve: Callable[[socket.socket], None]) -> None:
        self.id, self.host = backend_id, "127.0.0.1"
        self._serve_one = serve
        self._listening = socket.create_server((self.host, 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # `close` shut it down
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self._serve_one(client)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listening.close()


class HungBackend:
    """Listens but never accepts, and its queue is full: whoever dials it gets no answer."""

    def __init__(self, backend_id: str, host: str = "127.0.0.1") -> None:
        self.id = backend_id
        self.host = host
        self._listening = socket.socket()
        self._listening.bind((host, 0))
        self._listening.listen(0)
        self.port: int = self._listening.getsockname()[1]
        self._waiting: list[socket.socket] = []
        while self._takes_another():
            pass

    def _takes_another(self) -> bool:
        waiting = socket.socket()
        waiting.settimeout(0.2)
        self._waiting.append(waiting)
        return waiting.connect_ex((self.host, self.port)) == 0

    def close(self) -> None:
        for waiting in self._waiting:
            waiting.close()
        self._listening.close()


def _has_left(client: socket.socket) -> bool:
    """Return whether the proxy has given this connection up, seen by us or not yet."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))
