"""The connection of one probe: it begins like those of clients, and what it reads is bounded.

It goes to the address and the port that clients are sent to. First comes the PROXY header that the
backend expects, without a client; then TLS, with the same name and the same authorities; then what
the probe asks.

Invariants:
* A probe reads at most `MAX_BYTES`, in at most `MAX_READS` reads of at most `READ_BYTES`. What TLS
  adds counts, too.
* After each read, everything else on the loop has its turn, and of all probes one goes on.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from ipaddress import ip_address

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import Opening
from edgeproxy.engine.portable.tls_context import backend_context

MAX_BYTES = 65536
MAX_READS = 256
READ_BYTES = 1024


class ProbeError(Exception):
    """A backend is not well; the message says why."""


class Turns:
    """Lets the probes of one loop go on one by one, each in a turn of the loop of its own."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        """Wait for the next turn that no other probe has."""
        async with self._lock:
            await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    backend: Backend, opening: Opening, alpn: tuple[str, ...], turns: Turns
) -> AsyncIterator[ProbeConnection]:
    """Connect to a backend; the connection ends with the block. Raises OSError and ProbeError."""
    tcp = await _dial(backend.wg_ip, backend.port)
    connection = ProbeConnection(tcp, turns)
    try:
        await connection.begin(opening, alpn)
        yield connection
    finally:
        connection.close()


class ProbeConnection:
    """A connection to a backend. For one event loop."""

    def __init__(self, tcp: socket.socket, turns: Turns) -> None:
        self._tcp = tcp
        self._turns = turns
        self._bytes = 0
        self._reads = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def begin(self, opening: Opening, alpn: tuple[str, ...]) -> None:
        """Exchange what comes before the data. Raises OSError and ProbeError."""
        await self.send(opening.header)
        if not opening.tls_name:
            return
        await self._turns.next()
        tls = _context(opening.ca_pem, alpn).wrap_bio(
            self._incoming, self._outgoing, server_hostname=opening.tls_name
        )
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive_records():
                    raise ProbeError("TLS: closed the connection in the handshake") from None
            except ssl.SSLError as error:
                self._flush_if_possible()  # it says why
                raise ProbeError(_text(error)) from None
            else:
                break
        await self._flush()
        self._tls = tls

    async def send(self, data: bytes) -> None:
        """Send all of this. Raises OSError and ProbeError."""
        if not data:
            return
        if self._tls is None:
            await asyncio.get_running_loop().sock_sendall(self._tcp, data)
        else:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise ProbeError(_text(error)) from None
            await self._flush()

    async def receive(self) -> bytes:
        """Return the next bytes, b"" at their end. Raises OSError and ProbeError."""
        if self._tls is None:
            return await self._read()
        if self._tls.pending():  # of a large record that has come in several reads
            await self._turns.next()
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive_records():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ProbeError(_text(error)) from None

    def close(self) -> None:
        """End the connection; what TLS says at its end is sent if there is room for it."""
        if self._tls is not None:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush_if_possible()
        self._tcp.close()

    async def _read(self) -> bytes:
        """Return bytes as they come over TCP, in a turn of our own."""
        if self._bytes >= MAX_BYTES:
            raise ProbeError(f"no answer within {MAX_BYTES} bytes")
        if self._reads >= MAX_READS:
            raise ProbeError(f"no answer within {MAX_READS} reads")
        received = await asyncio.get_running_loop().sock_recv(self._tcp, READ_BYTES)
        self._bytes += len(received)
        self._reads += 1
        await self._turns.next()
        return received

    async def _receive_records(self) -> bool:
        """Give TLS the next bytes; return whether there were any."""
        received = await self._read()
        self._incoming.write(received)
        return bool(received)

    async def _flush(self) -> None:
        """Send what TLS has to say."""
        if self._outgoing.pending:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(self._tcp, self._outgoing.read())

    def _flush_if_possible(self) -> None:
        with suppress(OSError):
            self._tcp.send(self._outgoing.read())


async def _dial(host: str, port: int) -> socket.socket:
    """Return a connection to the first address of a host that accepts one. Raises OSError."""
    loop = asyncio.get_running_loop()
    fault = OSError(f"{host} has no address")
    for address in await _addresses(host, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setblocking(False)
            await loop.sock_connect(tcp, (address, port))
        except OSError as error:
            fault = error
            tcp.close()
        except BaseException:
            tcp.close()
            raise
        else:
            return tcp
    raise fault


async def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, which is an address itself but for users of the library."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(where[0]) for *_, where in found]


@lru_cache(maxsize=8)
def _context(ca_pem: bytes, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = backend_context(ca_pem)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _text(error: ssl.SSLError) -> str:
    """Return what is wrong with a TLS connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    return f"TLS: {(error.reason or 'protocol error').lower().replace('_', ' ')}"
