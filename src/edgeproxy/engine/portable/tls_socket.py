"""TLS for the portable engine: contexts, and a client's socket that speaks it.

A `TlsSocket` reads and writes like the socket that it takes the place of. It differs in two
things, which `relay` knows: it has to be read until there is nothing, since bytes may wait in it
that no event tells of; and it may hold bytes that its socket has not taken (`has_unsent`).
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
"""Who has more to be said to it, as answers to requests for new keys, and does not read, is not
read either."""

_asked_names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()


class TlsContext:
    """How the clients of a listener are met. Raises TlsError."""

    def __init__(self, settings: TlsSettings) -> None:
        made = {each: _context_of(each, settings) for each in settings.certificates}
        self._default = made[settings.certificates[0]]
        self._by_name: dict[str, ssl.SSLContext] = {}
        for certificate, context in made.items():
            for name in certificate.names:
                self._by_name.setdefault(name.lower(), context)
        self._default.sni_callback = self._choose

    def wrap(self, tcp: socket.socket) -> TlsSocket:
        """Return a socket that takes the place of this one."""
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
            f"the certificate, its key or those to trust cannot be used: {reason}"
        ) from None
    finally:
        os.close(descriptor)
    return context


class TlsSocket(socket.socket):
    """One end of a connection that speaks TLS. Not blocking.

    The server's, or that of a client who wants a server with the name `server_name`.
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
        self._failure: OSError | None = None  # the system tells it once, to whoever writes
        self._has_ended = False
        self._has_said_end = False
        self._is_shut = False

    @property
    def has_unsent(self) -> bool:
        """Whether the socket has not taken everything that was sent."""
        return bool(self._unsent) or self._outgoing.pending > 0

    @property
    def has_unread(self) -> bool:
        """Whether bytes of the client wait in here."""
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
        """Return what was agreed on."""
        return TlsInfo(
            _asked_names.get(self._tls, ""),
            self._tls.selected_alpn_protocol() or "",
            self._tls.version() or "",
            bool(self._tls.session_reused),
        )

    def recv_into(self, buffer: memoryview, *_: object) -> int:  # type: ignore[override]
        """Read like a socket. A broken rule of TLS is an OSError with EPROTO."""
        while True:
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
        """Say that no more will come; return whether the socket has taken that.

        Bytes of the client that wait in here are kept away meanwhile: `unwrap` wants to read the
        client's end, too, and would take them for a mistake.
        """
        if not self._has_said_end:
            self._has_said_end = True
            waiting = self._incoming.read()
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._incoming.write(waiting)
        return self.flush()

    def say_no_end(self) -> None:
        """Keep silent from now on: the client is to see a reset."""
        self._has_said_end = True

    def shutdown(self, how: int) -> None:
        """Say the end, as far as the socket takes it, and then end this side."""
        with suppress(OSError):
            self.say_end()
        self._is_shut = True
        super().shutdown(how)

    def flush(self) -> bool:
        """Give the socket what it takes; return whether it has taken everything.

        After our end nothing is said any more, though OpenSSL wants to: whoever goes on sending may
        ask for new keys.
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
        """Flush, while reading: whoever writes will learn of a socket that takes nothing."""
        with suppress(OSError):
            self.flush()

    def _feed(self) -> None:
        """Take what the socket has. Raises BlockingIOError if it has nothing.

        OpenSSL is not told of the end: where that comes without a close_notify, it would not
        send any more either.
        """
        if self._outgoing.pending + len(self._unsent) > MOST_UNSENT_BYTES:
            raise self._failure or BlockingIOError
        received = super().recv(READ_BYTES)
        self._incoming.write(received)
        self._has_ended = not received
