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
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from edgeproxy.engine.tls import (
    CIPHERS,
    GROUPS,
    TICKETS,
    Certificate,
    TlsError,
    TlsInfo,
    TlsSettings,
)
from edgeproxy.host_name import host_name, name_or_wildcard

READ_BYTES = 1 << 16
MOST_UNSENT_BYTES = 1 << 16
"""With more unsent bytes, we stop reading: the peer asks for new keys (KeyUpdate) and does not
read our answers."""

FEEDS_PER_READ = 2
"""How often one read receives without a byte for the session, as with an endless KeyUpdate."""
PART_READS = 4
"""How often unread bytes of a peer are read before its connection is closed."""

_NO_RESET = struct.pack("ii", 0, 0)
_NO_APPLICATION_PROTOCOL = 120
_HANDSHAKE_FAILURE = 40
_HANDSHAKE = 22
_GROUPS, _ALPN, _KEY_SHARES = 10, 16, 51
_OUR_GROUPS = frozenset((b"\0\x1d", b"\0\x17", b"\0\x18"))
"""Those of `GROUPS`."""
_FINITE_FIELDS = 1
"""The first byte of the numbers of their groups (RFC 7919)."""
CAN_CHOOSE_GROUPS = hasattr(ssl.SSLContext, "set_groups")
"""From Python 3.15 on; before, OpenSSL offers all that it has."""


class _Asked:
    """What a client asks for: its server name, and the bytes of its ClientHello until then."""

    __slots__ = ("hello", "name")

    def __init__(self) -> None:
        self.hello: bytearray | None = bytearray()
        self.name = ""


_asked: WeakKeyDictionary[ssl.SSLObject, _Asked] = WeakKeyDictionary()


class TlsContext:
    """How a listener speaks TLS with its clients. Raises TlsError."""

    def __init__(self, settings: TlsSettings) -> None:
        self._alpn = {name.encode() for name in settings.alpn}
        self._demands_certificate = bool(settings.client_ca_pem)
        made = {each: _context_of(each, settings) for each in settings.certificates}
        self._default = made[settings.certificates[0]]
        self._by_name: dict[str, ssl.SSLContext] = {}
        for certificate, context in made.items():
            for name in certificate.names:
                self._by_name.setdefault(name_or_wildcard(name) or name, context)
        self._default.sni_callback = self._choose

    def wrap(self, tcp: socket.socket) -> TlsSocket:
        """Return a TLS socket that replaces this one."""
        return TlsSocket(tcp, self._unresumable() if self._demands_certificate else self._default)

    def _unresumable(self) -> ssl.SSLContext:
        """Return a context for one client, to which nobody can come back.

        Tickets and remembered sessions belong to the context that a connection begins with, and
        `ssl` cannot do without them in TLS 1.2. `_choose` goes on with one with a certificate.
        """
        context = _new_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.sni_callback = self._choose
        return context

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Choose the certificate of the name that the client asks for.

        Return an alert if the client offers protocols, and none of ours, or only key exchanges
        that are not ours.
        """
        asked = _asked[tls]
        if asked.hello is not None:  # not asked again, after a request for another key
            extensions, asked.hello = _extensions(bytes(asked.hello)), None
            if not CAN_CHOOSE_GROUPS and _costs_too_much(extensions):
                return _HANDSHAKE_FAILURE
            if self._alpn and _offers_only_others(self._alpn, extensions.get(_ALPN, b"")):
                return _NO_APPLICATION_PROTOCOL
        asked.name = host_name(name) or "" if name else ""
        tls.context = _found(self._by_name, asked.name) or self._default
        return None


def _found(by_name: Mapping[str, ssl.SSLContext], name: str) -> ssl.SSLContext | None:
    first, dot, rest = name.partition(".")
    return by_name.get(name) or (by_name.get(f"*.{rest}") if first and dot else None)


def _extensions(records: bytes) -> dict[int, bytes]:
    """Return the extensions of a ClientHello that OpenSSL has found to be well-formed."""
    message, at = bytearray(), 0
    while at < len(records) and records[at] == _HANDSHAKE:
        size = int.from_bytes(records[at + 3 : at + 5])
        message += records[at + 5 : at + 5 + size]
        at += 5 + size
    if not message:  # an SSL 2.0 hello, which has none
        return {}
    end = 4 + int.from_bytes(message[1:4])
    at = 4 + 2 + 32
    at += 1 + message[at]  # session id
    at += 2 + int.from_bytes(message[at : at + 2])  # ciphers
    at += 1 + message[at] + 2  # compressions, and the size of what follows
    found = {}
    while at < end:
        kind, size = int.from_bytes(message[at : at + 2]), int.from_bytes(message[at + 2 : at + 4])
        found[kind] = bytes(message[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _offers_only_others(protocols: Iterable[bytes], offered: bytes) -> bool:
    """Return whether a client offers protocols by ALPN, and none of these."""
    entries, at = set(), 2
    while at < len(offered):
        entries.add(offered[at + 1 : at + 1 + offered[at]])
        at += 1 + offered[at]
    return bool(entries) and entries.isdisjoint(protocols)


def _costs_too_much(extensions: Mapping[int, bytes]) -> bool:
    """Return whether OpenSSL could agree on a key exchange over a finite field.

    One over 8,192 bits takes 120 ms, in which nobody else is served. It takes the first share of a
    key that it knows, or asks for a group of the list, where its own favourites go first.
    """
    groups = extensions.get(_GROUPS, b"")[2:]
    listed = {groups[at : at + 2] for at in range(0, len(groups), 2)}
    if listed and listed.isdisjoint(_OUR_GROUPS):
        return True
    shares, at = extensions.get(_KEY_SHARES, b""), 2
    while at < len(shares):
        if shares[at] == _FINITE_FIELDS:
            return True
        at += 4 + int.from_bytes(shares[at + 2 : at + 4])
    return False


def _new_context() -> ssl.SSLContext:
    """Return what the contexts for clients have in common."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    if CAN_CHOOSE_GROUPS:
        context.set_groups(GROUPS)  # type: ignore[attr-defined]
    return context


def _context_of(certificate: Certificate, settings: TlsSettings) -> ssl.SSLContext:
    context = _new_context()
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


def _common_name(certificate: Mapping[str, Any]) -> str:
    subject = (entry for several in certificate.get("subject", ()) for entry in several)
    return next((str(value) for key, value in subject if key == "commonName"), "")


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
        self._asked = _asked[self._tls] = _Asked()
        if server_name is not None:
            self._asked.hello = None
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
        """Return what a finished handshake with a client has led to."""
        certificate = self._tls.getpeercert()
        return TlsInfo(
            self._asked.name,
            self._tls.selected_alpn_protocol() or "",
            self._tls.version() or "",
            bool(self._tls.session_reused),
            has_certificate=bool(certificate),
            common_name=_common_name(certificate or {}),
        )

    def agreed_protocol(self) -> str:
        """Return what was agreed on by ALPN, or ""."""
        return self._tls.selected_alpn_protocol() or ""

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

    def part(self) -> None:
        """Make `close` an end without a reset, which would take our alert from the peer."""
        with suppress(OSError):
            if self.flush():
                self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_RESET)
                super().shutdown(socket.SHUT_WR)
                for _ in range(PART_READS):  # closed with unread bytes, it would reset
                    if len(super().recv(READ_BYTES)) < READ_BYTES:
                        break

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
        if self._asked.hello is not None:
            self._asked.hello += received
        self._has_ended = not received
