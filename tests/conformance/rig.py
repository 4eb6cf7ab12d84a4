"""A running engine between clients and a backend, and the proof that it left nothing behind."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

from edgeproxy.engine.contract import (
    PLAIN,
    Engine,
    EngineSettings,
    ListenerSettings,
    SessionInfo,
)
from edgeproxy.engine.session_states import Outcome
from edgeproxy.engine.sockets import open_listener
from tests.conformance.engines import MakeEngine
from tests.conformance.gates import Address, ScriptedGate, Ticket
from tests.conformance.peers import DEADLINE_SECS, Backend, Peer, Stream, limit_buffers
from tests.waiting import wait_until

SMALL_BUFFER = 1 << 16

P = ParamSpec("P")
T = TypeVar("T")


class _Closable(Protocol):
    def close(self) -> None: ...


class Rig:
    """Sets up one engine, its gate, clients and backends; `close` checks the bookkeeping."""

    gate: ScriptedGate
    engine: Engine

    def __init__(self, kind: str, make_engine: MakeEngine) -> None:
        self._kind = kind
        self._make_engine = make_engine
        self._fds_before = open_descriptors()
        self._threads_before = running_threads()
        self._opened: list[_Closable] = []
        self._background: ThreadPoolExecutor | None = None
        self._started = False
        self.addresses: dict[str, tuple[str, int]] = {}
        self.crashes: list[BaseException] = []
        self._backend: Backend | None = None

    # -- setting up -------------------------------------------------------------------

    @property
    def backend(self) -> Backend:
        """The backend that clients reach if the test names no other."""
        if self._backend is None:
            self._backend = self.add_backend()
        return self._backend

    def add_backend(self, host: str = "127.0.0.1", buffer: int | None = None) -> Backend:
        return self.keep(Backend(host, buffer))

    def refusing_address(self) -> Address:
        """Return an address where every dial is refused."""
        bound = self.keep(socket.socket())
        bound.bind(("127.0.0.1", 0))
        address: tuple[str, int] = bound.getsockname()
        return address

    def silent_backend(self) -> Backend:
        backend = self.add_backend()
        backend.fall_silent()
        return backend

    def prepare(self, gate: ScriptedGate | None = None, **settings: Any) -> None:
        """Make an engine that is not started yet."""
        self.gate = gate or ScriptedGate(self.backend.address)
        self.engine = self._make_engine(
            EngineSettings(kind=self._kind, **settings),
            self.gate,
            self.crashes.append,
        )

    def listen(
        self,
        name: str = "main",
        host: str = "127.0.0.1",
        buffer: int | None = None,
        settings: ListenerSettings | None = None,
    ) -> tuple[str, int]:
        """Add a listener. `buffer` bounds what the kernel holds on the clients' side."""
        listening = open_listener(host, 0)
        if buffer:
            limit_buffers(listening, buffer)
        address: tuple[str, int] = listening.getsockname()[:2]
        self.addresses[name] = address
        self.engine.listen(name, listening, settings or self.listener_settings())
        return address

    def listener_settings(self) -> ListenerSettings:
        """Return the settings of listeners for which a test has none."""
        return PLAIN

    def start(self) -> None:
        self._started = True
        self.engine.start()

    def serve(self, gate: ScriptedGate | None = None, **settings: Any) -> None:
        """Start an engine with one listener."""
        self.prepare(gate, **settings)
        self.listen()
        self.start()

    def serve_with_small_buffers(self, **settings: Any) -> None:
        """Serve so that a reader who stops soon blocks whoever writes to it."""
        self._backend = self.add_backend(buffer=SMALL_BUFFER)
        self.prepare(None, **settings)
        self.listen(buffer=SMALL_BUFFER)
        self.start()

    def connect(self, listener: str = "main", buffer: int | None = None) -> Peer:
        """Connect a client. `buffer` bounds what the kernel holds for it."""
        return Peer(self.tcp(listener, buffer))

    def tcp(
        self, listener: str = "main", buffer: int | None = None, host: str = ""
    ) -> socket.socket:
        """Return a connection on which no client has spoken yet, from this host's address."""
        address = self.addresses[listener]
        sock = self.keep(socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET))
        if buffer:
            limit_buffers(sock, buffer)
        if host:
            sock.bind((host, 0))
        sock.settimeout(DEADLINE_SECS)
        code = sock.connect_ex(address)
        if code not in (0, errno.ECONNRESET):  # it may be accepted and reset already
            raise OSError(code, os.strerror(code))
        return sock

    def accept(self, backend: Backend | None = None) -> Peer:
        return self.keep((backend or self.backend).accept())

    def pair(self, buffer: int | None = None) -> tuple[Peer, Peer]:
        """Return both ends of a new session: the client's and the backend's."""
        if not self._started:
            self.serve()
        client = self.connect(buffer=buffer)
        server = self.accept()
        address = client.sock.getsockname()
        latest = self.gate.tickets[-1]
        assert latest.client == address
        self.gate.wait_for(lambda: latest.dialed_at is not None, f"dialed: {latest}")
        return client, server

    def small_pair(self) -> tuple[Peer, Peer]:
        """Return both ends of a session that blocks soon; see `serve_with_small_buffers`."""
        if not self._started:
            self.serve_with_small_buffers()
        return self.pair(buffer=SMALL_BUFFER)

    def carry_both_ways(self, client: Peer, server: Peer, size: int) -> None:
        """Let both send so many bytes at once, and check that they arrive."""
        up, down = Stream(1), Stream(2)
        work = [
            self.run(client.send_stream, up, size),
            self.run(server.send_stream, down, size),
            self.run(client.receive_stream, down, size),
            self.run(server.receive_stream, up, size),
        ]
        for each in work:
            each.result(60)

    def keep(self, opened: _ClosableT) -> _ClosableT:
        """Close this at the end."""
        self._opened.append(opened)
        return opened

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run on a thread of its own."""
        if self._background is None:
            self._background = ThreadPoolExecutor(16)
        return self._background.submit(function, *args, **kwargs)

    @contextmanager
    def gate_thread_held(self) -> Iterator[None]:
        """Keep the gate thread busy meanwhile, so that nobody is accepted or dialed."""
        hold = _Hold()
        self.engine.call(hold)
        with hold.taken():
            yield

    @contextmanager
    def dial_unheard(self) -> Iterator[Peer]:
        """Connect a client; meanwhile the engine does not hear that its dial was answered."""
        hold = _Hold()
        self.gate.after_opened = lambda: self.engine.call(hold)
        client = self.connect()
        with hold.taken():
            self.gate.after_opened = None
            yield client

    # -- looking ----------------------------------------------------------------------

    def wait_for_end(self, index: int = 0) -> Ticket:
        """Return the ticket given out as number `index` once it has ended."""
        tickets = self.gate.tickets
        self.gate.wait_for(
            lambda: len(tickets) > index and tickets[index].ended_at is not None,
            f"the end of ticket {index} of {tickets}",
        )
        return tickets[index]

    def outcome(self, index: int = 0) -> Outcome:
        """Return how the session of that ticket was closed, once it is."""
        outcome = self.wait_for_end(index).outcome
        assert outcome is not None, f"failed instead: {self.gate.tickets[index]}"
        return outcome

    def session(self) -> SessionInfo:
        """Return the only live session."""
        (session,) = self.engine.sessions()
        return session

    # -- the end ----------------------------------------------------------------------

    def close(self) -> None:
        """Hang up everywhere, then stop the engine; fail if it forgot or kept anything."""
        self.hang_up()
        self.check()

    def hang_up(self) -> None:
        """Hang up everywhere, then stop the engine; fail if a session does not end."""
        self._close_opened()
        if self._background is not None:
            self._background.shutdown()
            self._close_opened()  # what it has opened meanwhile
        try:
            if self._started:
                wait_until(lambda: not self.gate.unended(), "all tickets ended")
                wait_until(lambda: self.engine.live() == 0, "no live session")
        finally:
            if hasattr(self, "engine"):
                self.engine.stop()

    def _close_opened(self) -> None:
        for opened in list(self._opened):
            opened.close()

    def check(self) -> None:
        """Fail if the engine, which has stopped, forgot or kept anything."""
        if not hasattr(self, "engine"):
            return
        self.gate.check()
        assert not self.crashes
        assert self.engine.live() == 0
        assert self.engine.sessions() == []
        wait_until(lambda: running_threads() <= self._threads_before, "all threads gone", 5)
        gc.collect()
        left = open_descriptors().items() - self._fds_before.items()
        assert not left, f"descriptors left open: {left}"


class _Hold:
    """Keeps busy the thread that calls it."""

    def __init__(self) -> None:
        self._held, self._go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._held.set()
        self._go_on.wait(DEADLINE_SECS)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait until a thread is held, and let it go at the end."""
        try:
            assert self._held.wait(DEADLINE_SECS)
            yield
        finally:
            self._go_on.set()


_ClosableT = TypeVar("_ClosableT", bound=_Closable)


def open_descriptors() -> dict[int, str]:
    """Return what is open in this process, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the directory that is being listed
    return found


def running_threads() -> set[int]:
    """Return the system's ids of this process's threads, native ones included."""
    return {int(name) for name in os.listdir("/proc/self/task")} | {
        thread.native_id for thread in threading.enumerate() if thread.native_id
    }
