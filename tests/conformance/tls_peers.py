"""Clients that speak TLS: sockets that take the place of a plain one in a `Peer`.

TLS is spoken into memory and carried by hand, so that a test can do what no well-behaved client
does: say the end and go on reading, leave in the middle of a record, drip. One lock guards each
`SSLObject`, which must not be used from two threads at once; nobody waits while holding it.
"""

from __future__ import annotations

import ctypes
import select
import socket
import ssl
import struct
import tempfile
import threading
import time
from contextlib import suppress

from tests.conformance.peers import CHUNK, DEADLINE_SECS, Peer
from tests.conformance.tls_certificates import OURS, Signed, authority

RECORD_BYTES = 1 << 14
FLUSH_MS = 20
SSL_OFFSET = 24
"""Where in CPython's object the library's is."""


class RaggedEndError(AssertionError):
    """The connection has ended, and TLS had not."""


def client_context(
    *,
    version: ssl.TLSVersion | None = None,
    alpn: tuple[str, ...] = (),
    shows: Signed | None = None,
    trusts: Signed | None = None,
) -> ssl.SSLContext:
    """Return how a client speaks TLS: only `version`, showing a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=(trusts or authority(OURS)).pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if shows is not None:
        load(context, shows)
    return context


def load(context: ssl.SSLContext, shows: Signed) -> None:
    """Have a context show this certificate."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(shows.pem + shows.key_pem)
        file.flush()
        context.load_cert_chain(file.name)


def renew_keys(tls: ssl.SSLObject | ssl.SSLSocket, wants_answer: bool) -> bool:
    """Announce new keys, and ask for the other side's; see `TlsClientSocket.renew_keys`."""
    try:
        library = ctypes.CDLL("libssl.so.3")
    except OSError:
        return False
    inner = tls._sslobj  # type: ignore[union-attr]
    native = ctypes.c_void_p.from_address(id(inner) + SSL_OFFSET)
    library.SSL_get_version.restype = ctypes.c_char_p
    assert library.SSL_get_version(native) == b"TLSv1.3"
    assert library.SSL_key_update(native, int(wants_answer)) == 1
    tls.do_handshake()
    return True


class TlsClientSocket(socket.socket):
    """The client's end of a connection that speaks TLS, used like the socket it is made of.

    Bytes count as sent when they are encrypted: what the kernel does not take at once is pushed
    by a thread, and nothing more is taken meanwhile.

    Attributes:
        tls: What speaks; `with_lock` for everybody.
        ends_tcp: To end is also to send a FIN, beside the close_notify.
    """

    def __init__(
        self, tcp: socket.socket, context: ssl.SSLContext, name: str | None, session: object
    ) -> None:
        super().__init__(fileno=tcp.detach())
        super().setblocking(False)
        self._patience: float | None = DEADLINE_SECS
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_hostname=name,
            session=session,  # type: ignore[arg-type]
        )
        self._lock = threading.RLock()
        self._unsent = memoryview(b"")
        self._heard = bytearray()
        self._pusher: threading.Thread | None = None
        self._failure: OSError | None = None
        self._has_ended = False
        self._is_closed = False
        self.ends_tcp = False

    # -- by hand ----------------------------------------------------------------------

    def next_flight(self) -> bytes:
        """Go on with the handshake; return what is to be said, b"" when it is over."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def renew_keys(self, wants_answer: bool) -> bool:
        """Announce new keys for what comes next, and ask for the server's (TLS 1.3).

        No module does that: it is asked of the library behind `ssl`. Return whether it can be.
        """
        with self._lock:
            if not self._renew_keys(wants_answer):
                return False
            self._push()
        return True

    def key_request(self, count: int) -> bytes:
        """Return so many requests for new keys, which are to be sent raw; b"" if it cannot be."""
        for _ in range(count):
            if not self._renew_keys(True):
                return b""
        return self._outgoing.read()

    def key_announcement(self, count: int) -> bytes:
        """Return so many announcements of new keys, which want no answer and are to be sent raw."""
        for _ in range(count):
            if not self._renew_keys(False):
                return b""
        return self._outgoing.read()

    def send_some(self, data: memoryview) -> int:
        """Send bytes as they are; return how many the kernel takes now."""
        try:
            return super().send(data)
        except BlockingIOError:
            return 0

    def _renew_keys(self, wants_answer: bool) -> bool:
        return renew_keys(self.tls, wants_answer)

    def leftover(self) -> bytes:
        """Return what is still to be said, as an alert is."""
        return self._outgoing.read()

    def encrypted(self, data: bytes) -> bytes:
        """Return records with these bytes, which are to be sent raw."""
        self.tls.write(data)
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Return a close_notify, which is to be sent raw."""
        self._say_end()
        return self._outgoing.read()

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        view, deadline = memoryview(data), time.monotonic() + DEADLINE_SECS
        while view:
            try:
                view = view[super().send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def take_in(self, secs: float = DEADLINE_SECS) -> bool:
        """Take in what the server says next; return False at the end of the connection."""
        self._wait(select.POLLIN, time.monotonic() + secs)
        with self._lock:
            return self._feed()

    def shake_hands(self, tickets: bool = True) -> None:
        """Do the whole handshake, and take in the tickets that follow it, if any do."""
        while True:
            self.send_raw(self.next_flight())
            if self.tls.version() and self._is_shaken():
                break
            self.take_in()
        if tickets and self.tls.version() == "TLSv1.3":
            self.take_in()

    def _is_shaken(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    # -- as a socket ------------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        self._patience = value

    def setblocking(self, flag: bool) -> None:
        self._patience = None if flag else 0.0

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        del flags
        deadline = self._deadline()
        while True:
            with self._lock:
                self._raise_failure()
                if not self._has_unsent():
                    sent = self.tls.write(data[:RECORD_BYTES])
                    self._push()
                    return sent
            self._pause(deadline)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        view = memoryview(data)
        while view:
            view = view[self.send(view, flags) :]  # type: ignore[arg-type]

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        deadline, least = self._deadline(), bufsize if flags & socket.MSG_WAITALL else 1
        while True:
            with self._lock:
                has_more = self._hear(least)
                if len(self._heard) >= least or not has_more:
                    part = bytes(self._heard[:bufsize])
                    del self._heard[:bufsize]
                    return part
            self._wait(select.POLLIN, deadline)

    def shutdown(self, how: int) -> None:
        """Say the end. The connection itself ends only `ends_tcp`."""
        assert how == socket.SHUT_WR
        with self._lock:
            self._raise_failure()
            self._say_end()
            self._push()
        if self.ends_tcp:
            self.end_tcp()

    def end_tcp(self) -> None:
        """Send a FIN, when everything has been sent."""
        deadline = time.monotonic() + DEADLINE_SECS
        while self._has_unsent():
            self._pause(deadline)
        super().shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Say the end, if nobody has, and close; what has come is read before.

        What nobody takes is lost, which has to be a reset.
        """
        with self._lock:
            if not self._is_closed and self._failure is None:
                with suppress(OSError, ValueError):
                    self._say_end()
                    self._push()
                    while self._feed():
                        pass
                if self._has_unsent():
                    self.reset_on_close()
        self.abort()

    def reset_on_close(self) -> None:
        """Make closing a reset."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def abort(self) -> None:
        """Close without a word."""
        with self._lock:
            self._is_closed = True
            pusher = self._pusher
        if pusher is not None:
            pusher.join()
        super().close()

    # -- what they have in common -------------------------------------------------------

    def _deadline(self) -> float:
        return float("inf") if self._patience is None else time.monotonic() + self._patience

    def _has_unsent(self) -> bool:
        return bool(self._unsent) or self._outgoing.pending > 0

    def _hear(self, least: int) -> bool:
        """Decrypt what there is; return whether there may be more."""
        while len(self._heard) < max(least, 1):
            try:
                part = self.tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                if self._has_ended:
                    self._raise_failure()  # the kernel tells of a reset once, and it has
                    raise RaggedEndError("the connection ended without close_notify") from None
                try:
                    self._feed()
                except BlockingIOError:
                    return True
            except ssl.SSLZeroReturnError:
                return False
            else:
                if not part:
                    return False
                self._heard += part
        return True

    def _feed(self) -> bool:
        part = super().recv(CHUNK)
        self._incoming.write(part)
        self._has_ended = not part
        return bool(part)

    def _say_end(self) -> None:
        """Write a close_notify. What has come is kept away from OpenSSL meanwhile."""
        came = self._incoming.read()
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        self._incoming.write(came)

    def _push(self) -> None:
        """Have the kernel take what it takes, and a thread push the rest."""
        while self._has_unsent():
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[super().send(self._unsent) :]
            except BlockingIOError:
                if self._pusher is None:
                    self._pusher = threading.Thread(target=self._push_on, daemon=True)
                    self._pusher.start()
                return
            except OSError as error:
                self._unsent = memoryview(b"")
                self._outgoing.read()
                self._failure = ConnectionResetError(*error.args)
                raise

    def _push_on(self) -> None:
        while True:
            with self._lock:
                try:
                    if not self._is_closed:
                        self._push()
                except OSError:
                    pass  # whoever uses it next will learn of it
                if self._is_closed or not self._has_unsent():
                    self._pusher = None
                    return
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            poll.poll(FLUSH_MS)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self, event)
        secs = min(max(deadline - time.monotonic(), 0), DEADLINE_SECS)
        if not poll.poll(secs * 1000):
            raise BlockingIOError if self._patience == 0 else TimeoutError

    def _pause(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise BlockingIOError if self._patience == 0 else TimeoutError
        threading.Event().wait(0.001)


class TlsPeer(Peer):
    """A client that speaks TLS. `reset` leaves without a word, `end` says close_notify."""

    sock: TlsClientSocket

    def reset(self) -> None:
        self.sock.reset_on_close()
        self.sock.abort()

    @property
    def tls(self) -> ssl.SSLObject:
        return self.sock.tls
