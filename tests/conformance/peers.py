"""The ends of a connection: real sockets, moved by hand, with a deadline on everything."""

from __future__ import annotations

import array
import ctypes
import fcntl
import random
import select
import socket
import struct
import termios
from typing import NamedTuple

DEADLINE_SECS = 20.0
QUIET_SECS = 0.2
"""A peer that may not write for so long counts as blocked."""

CHUNK = 1 << 16
RING = 262_147  # prime, so that no buffer size can hide a shifted, lost or repeated part

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # the socket module does not name them


class Stream:
    """An endless reproducible stream of bytes; equal seeds give equal streams."""

    def __init__(self, seed: int) -> None:
        ring = random.Random(seed).randbytes(RING)
        self._twice = ring + ring

    def slice(self, start: int, length: int) -> bytes:
        """Return at most RING bytes from `start`."""
        start %= RING
        return self._twice[start : start + min(length, RING)]


class Pause(NamedTuple):
    """What came until the end, and whether the end was a reset."""

    data: bytes
    reset: bool


class Peer:
    """One end of a TCP connection. Everything fails after DEADLINE_SECS."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE_SECS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # any delay is the engine's
        self.sock = sock
        self.sent = 0
        self.received = 0

    def send(self, data: bytes, flags: int = 0) -> None:
        self.sock.sendall(data, flags)

    def receive(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        parts = []
        while count:
            part = self.sock.recv(min(count, CHUNK))
            assert part, f"the stream ended {count} bytes early"
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def rest(self) -> Pause:
        """Read until the end."""
        parts = []
        try:
            while part := self.sock.recv(CHUNK):
                parts.append(part)
        except ConnectionResetError:
            return Pause(b"".join(parts), reset=True)
        return Pause(b"".join(parts), reset=False)

    def send_stream(self, stream: Stream, count: int) -> None:
        """Send the next `count` bytes of the stream."""
        end = self.sent + count
        while self.sent < end:
            self.sent += self.sock.send(stream.slice(self.sent, min(CHUNK, end - self.sent)))

    def send_until_blocked(self, stream: Stream, limit: int = 64 << 20) -> int:
        """Send until nothing more is taken for QUIET_SECS; return how much was taken."""
        before = self.sent
        self.sock.setblocking(False)
        while self.writable_within(QUIET_SECS) and self.sent - before < limit:
            try:
                self.sent += self.sock.send(stream.slice(self.sent, CHUNK))
            except BlockingIOError:
                continue
        self.sock.settimeout(DEADLINE_SECS)
        return self.sent - before

    def receive_stream(self, stream: Stream, count: int) -> None:
        """Receive exactly `count` bytes and check that they are the stream's next."""
        end = self.received + count
        while self.received < end:
            part = self.sock.recv(min(CHUNK, end - self.received))
            assert part, f"the stream ended {end - self.received} bytes early"
            self._check(part, stream)

    def rest_of_stream(self, stream: Stream) -> bool:
        """Read to the end, checking as above; return whether the end was a reset."""
        try:
            while part := self.sock.recv(CHUNK):
                self._check(part, stream)
        except ConnectionResetError:
            return True
        return False

    def _check(self, part: bytes, stream: Stream) -> None:
        assert part == stream.slice(self.received, len(part)), f"wrong bytes at {self.received}"
        self.received += len(part)

    def first(self, count: int) -> bytes:
        """Return the first `count` bytes, or fewer if the stream ends or breaks before."""
        try:
            return self.sock.recv(count, socket.MSG_WAITALL)
        except ConnectionResetError:
            return b""

    def unread_bytes(self) -> int:
        """Return how many bytes have arrived and wait to be read."""
        return _queue_bytes(self.sock, termios.FIONREAD)

    def unacknowledged_bytes(self) -> int:
        """Return how many of the bytes sent are not at the other end yet."""
        return _queue_bytes(self.sock, termios.TIOCOUTQ)

    def writable_within(self, secs: float) -> bool:
        return _wait(self.sock, select.POLLOUT, secs)

    def end(self) -> None:
        """Send a FIN; the other direction stays open."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def vanish(self) -> None:
        """Answer nothing any more, not even acknowledgements, as after a power cut."""
        drop_everything(self.sock)

    def close(self) -> None:
        self.sock.close()


class Backend:
    """A listening socket; the test accepts by hand.

    `buffer` bounds what the kernel holds at this end of a session.
    """

    def __init__(self, host: str = "127.0.0.1", buffer: int | None = None, port: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if buffer:
            limit_buffers(self.sock, buffer)
        self.sock.bind((host, port))
        self.sock.listen(1024)
        self.sock.settimeout(DEADLINE_SECS)
        self.address: tuple[str, int] = self.sock.getsockname()[:2]

    def accept(self) -> Peer:
        return Peer(self.sock.accept()[0])

    def has_waiting(self, secs: float = 0.0) -> bool:
        """Tell whether somebody waits to be accepted, now or within `secs`."""
        return _wait(self.sock, select.POLLIN, secs)

    def fall_silent(self) -> None:
        """Let dials hang: no SYN is answered any more."""
        drop_everything(self.sock)

    def relent(self) -> None:
        """Answer again; a dial that hangs comes through with its next SYN, within a second."""
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def close(self) -> None:
        self.sock.close()


def limit_buffers(sock: socket.socket, size: int) -> None:
    """Keep the kernel from growing this socket's buffers, and those of what it accepts."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def drop_everything(sock: socket.socket) -> None:
    """Attach a packet filter that drops whatever arrives at this socket."""
    returns_zero = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(returns_zero))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _queue_bytes(sock: socket.socket, request: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), request, count)
    return count[0]


def _wait(sock: socket.socket, event: int, secs: float) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(secs * 1000))
