"""TLS for the portable engine: contexts for listeners, and sockets that speak TLS.

A `TlsSocket` reads and writes like the socket that it replaces. It differs in two things, which
`relay` knows: it has to be read until it is empty, since no event reports the bytes that wait in
it; and it may hold bytes that its socket has not taken (`has_unsent`).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import cast
from weakref import WeakKeyDictionary

from edgeproxy.engine.tls import CIPHERS, TICKETS, Certificate, TlsError, TlsInfo, TlsSettings

READ_BYTES = 1 << 16
MOST_UNSENT_BYTES = 1 << 16
"""With more unsent bytes, we stop reading: the peer asks for new keys (KeyUpdate) and does not
read our answers."""

FEEDS_PER_READ = 2
"""How often one read receives without a byte for the session, as with an endless KeyUpdate."""

_asked_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()


class TlsContext:
    """How a listener speaks TLS with its clients. Raises TlsError."""

    def __init__(self, settings: TlsSettings) -> None:
        made = {each: _context_of(each, settings) for each in settings.certificates}
        self._default = made[settings.certificates[0]]
        self._by_name: dict[str, ssl.SSLContext] = {}
        for certificate, context in made.items():
            for name in certificate.names:
                self._by_name.setdefault(name.lower(), context)
        self._default.sni_callback = self._choose

    def wrap(self, tcp: socket.socket) -> TlsSocket:
        """Return a TLS socket that replaces this one."""
        return TlsSocket(tcp, self._default)

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Choose the certificate of the name that the client asks for."""
        if name is None:
            return
        _asked_names[tls] = name = name.lower()
        found = _found(self._by_name, name)
        if found is not None:
            tls.context = found


def _found(by_name: Mapping[str, ssl.SSLContext], name: str) -> ssl.SSLContext | None:
    first, dot, rest = name.partition(".")
    return by_name.get(name) or (by_name.get(f"*.{rest}") if first and dot else None)


def _context_of(certificate: Certificate, settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.num_tickets = TICKETS
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)  # OpenSSL reads files only
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate.chain_pem + b"\n" + certificate.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
        if settings.client_ca_pem:
            context.load_verify_locations(cadata=settings.client_ca_pem.decode())
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise TlsError(
            f"the certificate, its key or the client authorities cannot be used: {reason}"
        ) from None
    finally:
        os.close(descriptor)
    return context


class TlsSocket(socket.socket):
    """One end of a connection that speaks TLS. Not blocking.

    It is the server's end or, with `server_name`, the end of a client of that server.
    """

    def __init__(
        self, tcp: socket.socket, context: ssl.SSLContext, server_name: str | None = None
    ) -> None:
        super().__init__(fileno=tcp.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_name is None, server_name
        )
        self._unsent = memoryview(b"")
        self._failure: OSError | None = None  # the system reports it once, to a write
        self._has_ended = False
        self._has_said_end = False
        self._is_shut = False

    @property
    def has_unsent(self) -> bool:
        """Whether the socket has not taken everything that was sent."""
        return bool(self._unsent) or self._outgoing.pending > 0

    @property
    def has_unread(self) -> bool:
        """Whether received bytes wait to be read here."""
        return self._incoming.pending > 0 or self._tls.pending() > 0

    def shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is over. Raises OSError if it failed."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                try:
                    self._feed()
                except BlockingIOError:
                    return False
                if self._has_ended:
                    raise ConnectionAbortedError from None
            except ssl.SSLError:
                with suppress(OSError):
                    self.flush()  # it says why
                raise
            else:
                self.flush()
                return True

    def info(self) -> TlsInfo:
        """Return server name, ALPN protocol, version and resumption of a finished handshake."""
        return TlsInfo(
            _asked_names.get(self._tls, ""),
            self._tls.selected_alpn_protocol() or "",
            self._tls.version() or "",
            bool(self._tls.session_reused),
        )

    def recv_into(self, buffer: memoryview, *_: object) -> int:  # type: ignore[override]
        """Read like a socket. A violation of TLS is an OSError with EPROTO.

        Raises InterruptedError if there is more to receive, but others are to have their turn.
        """
        for _turn in range(FEEDS_PER_READ):
            try:
                return cast(int, self._tls.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                if self._has_ended:
                    if self._failure is not None:
                        raise self._failure from None
                    return 0
                self._flush_if_possible()
                self._feed()
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLError as error:
                self._flush_if_possible()  # it says why
                raise OSError(errno.EPROTO, str(error.reason)) from None
        raise InterruptedError

    def send(self, data: memoryview, *_: object) -> int:  # type: ignore[override]
        """Write like a socket, but all or nothing; see `has_unsent`."""
        if not self.flush():
            raise BlockingIOError
        try:
            sent = self._tls.write(data)
        except ssl.SSLError as error:
            raise OSError(errno.EPROTO, str(error.reason)) from None
        self.flush()
        return sent

    def say_end(self) -> bool:
        """Send close_notify; return whether the socket has taken it.

        Received bytes are set aside meanwhile: `unwrap` also reads the peer's close_notify, and
        would treat other bytes as an error.
        """
        if not self._has_said_end:
            self._has_said_end = True
            waiting = self._incoming.read()
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._incoming.write(waiting)
        return self.flush()

    def say_no_end(self) -> None:
        """Send no close_notify: the peer is to see a reset."""
        self._has_said_end = True

    def shutdown(self, how: int) -> None:
        """Send close_notify, as far as the socket takes it, and then shut this side down."""
        with suppress(OSError):
            self.say_end()
        self._is_shut = True
        super().shutdown(how)

    def flush(self) -> bool:
        """Give the socket what it takes; return whether it has taken everything.

        After we have shut the socket, what OpenSSL writes is dropped: a peer that goes on sending
        may still ask for new keys (KeyUpdate).
        """
        if self._is_shut:
            self._unsent = memoryview(b"")
            self._outgoing.read()
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                sent = super().send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                self._failure = error
                raise
            self._unsent = self._unsent[sent:]
        return True

    def _flush_if_possible(self) -> None:
        """Flush while reading. Errors are ignored: the next write reports them."""
        with suppress(OSError):
            self.flush()

    def _feed(self) -> None:
        """Receive what the socket has. Raises BlockingIOError if it has nothing.

        OpenSSL does not see the end of the stream: without a close_notify before it, OpenSSL
        would not send any more either.
        """
        if self._outgoing.pending + len(self._unsent) > MOST_UNSENT_BYTES:
            raise self._failure or BlockingIOError
        received = super().recv(READ_BYTES)
        self._incoming.write(received)
        self._has_ended = not received
