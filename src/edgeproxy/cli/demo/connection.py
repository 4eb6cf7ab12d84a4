"""A client of the proxy: one TCP connection from an address of its own on loopback."""

from __future__ import annotations

import hashlib
import socket

from edgeproxy.cli.demo.backend import numbered_lines
from edgeproxy.cli.demo.expected import DEADLINE_SECS

READ_BYTES = 1 << 18


class Connection:
    """One open connection. Its methods raise OSError on failure and after DEADLINE_SECS."""

    def __init__(self, client_ip: str, proxy: tuple[str, int]) -> None:
        self.client_ip = client_ip
        self._socket = socket.create_connection(proxy, DEADLINE_SECS, (client_ip, 0))
        self._stream = self._socket.makefile("rb")

    def ask(self) -> str:
        """Return the id of the backend at the other end."""
        self._socket.sendall(b"hello\n")
        return _until_end_of_line(self._stream.readline(1024)).partition(":")[0]

    def request_lines(self, count: int) -> str:
        """Ask for numbered lines; return the id of the backend that has begun to send them."""
        self._socket.sendall(f"GET /lines/{count} HTTP/1.0\r\n\r\n".encode())
        backend_id = ""
        while line := _until_end_of_line(self._stream.readline(1024)):
            name, _, content = line.partition(": ")
            backend_id = content if name == "X-Backend" else backend_id
        return backend_id

    def read(self, limit: int = READ_BYTES) -> bytes:
        """Return the next bytes, at most `limit`; none at the end of the stream."""
        return self._stream.read1(limit)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()


class Transfer:
    """A download of numbered lines from a backend; it reads only when `read_part` is called.

    Attributes:
        backend: The id of the backend that sends them.
        received_bytes: The number of bytes read so far.
    """

    def __init__(self, connection: Connection, lines: int) -> None:
        self._connection = connection
        self._lines = lines
        self._digest = hashlib.sha256()
        self.received_bytes = 0
        self.backend = connection.request_lines(lines)

    def read_part(self) -> bool:
        """Read some more; return whether there was more."""
        part = self._connection.read()
        self._digest.update(part)
        self.received_bytes += len(part)
        return bool(part)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def digest(self) -> str:
        """Return the SHA-256 of the bytes read."""
        return self._digest.hexdigest()

    def expected_digest(self) -> str:
        """Return the SHA-256 of the bytes that the backend should have sent."""
        digest = hashlib.sha256()
        for part in numbered_lines(self.backend, self._lines):
            digest.update(part)
        return digest.hexdigest()


def _until_end_of_line(line: bytes) -> str:
    if not line.endswith(b"\n"):
        raise ConnectionError("the connection was closed without an answer")
    return line.decode("ascii", "replace").strip()
