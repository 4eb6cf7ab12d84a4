"""Connects sessions of the portable engine to the backends that the gate chose.

The twin of `native/gate_thread/dialer.pyx`. A session is here from the gate's answer until its
backend has answered, which over TLS includes the handshake, or until no backend is left to try. Out
of descriptors, no client is turned away: dials wait until something is closed.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

from edgeproxy.engine import dial
from edgeproxy.engine.contract import Answer, Connect, DialFailure
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.engine.guarded_gate import GuardedGate
from edgeproxy.engine.portable.session import CLOSED, Flow, Session
from edgeproxy.engine.portable.tls_context import BackendTls
from edgeproxy.engine.portable.tls_socket import TlsSocket


class Dialer:
    """All dials of an engine. Used on the gate thread only.

    `watch` has the epoll watch a socket as the source of a flow, and raises OSError; `unwatch` ends
    that. `refused` is called for each session that no backend has answered, `pause` where
    descriptors are short.

    Attributes:
        ceiling: See `engine.descriptors`.
    """

    def __init__(
        self,
        gate: GuardedGate,
        ca_pem: bytes | None,
        watch: Callable[[socket.socket, Flow], object],
        unwatch: Callable[[socket.socket], object],
        refused: Callable[[Session], object],
        pause: Callable[[str], object],
    ) -> None:
        """`ca_pem` is that of `EngineSettings`. Raises TlsError."""
        self.ceiling = ceiling()
        self._gate = gate
        self._tls = None if ca_pem is None else BackendTls(ca_pem)
        self._watch = watch
        self._unwatch = unwatch
        self._refused = refused
        self._pause = pause
        self._dialer: set[Session] = set()
        self._short: deque[tuple[Session, Connect]] = deque()

    def __len__(self) -> int:
        return len(self._dialer)

    @property
    def is_short(self) -> bool:
        """Whether a dial waits for a descriptor."""
        return bool(self._short)

    def speak(self, tls: BackendTls) -> None:
        """Speak TLS with backends by this context from now on."""
        self._tls = tls

    def dial(self, session: Session, answer: Answer, now: float) -> None:
        """Follow the gate's answer until a dial is under way or the client is refused."""
        while isinstance(answer, Connect):
            session.ticket = answer.ticket
            session.prefix = answer.prefix
            session.server_name = answer.server_name
            session.began_at = now if answer.preconnected_fd < 0 else 0.0
            session.deadline = now + answer.timeout_secs
            try:
                self._begin(session, answer)
                return
            except dial.DialError as error:
                answer = self._gate.failed(session.ticket, error.reason, now)
        self._refused(session)

    def has_answered(self, session: Session, mask: int, now: float) -> bool:
        """Something happened to a backend; return whether its session may go on with it."""
        assert session.backend is not None
        if not isinstance(session.backend, TlsSocket):
            try:
                dial.check(session.backend)
            except dial.DialError as error:
                self._failed(session, error.reason, now)
                return False
            if not mask & select.EPOLLOUT:
                return False
        if session.server_name and not self._shakes_hands(session, now):
            return False
        self._dialer.discard(session)
        return True

    def expire(self, judged_at: float, now: float) -> None:
        """Fail the dials that were unanswered at their deadlines, up to `judged_at`."""
        for session in [each for each in self._dialer if each.deadline <= judged_at]:
            self._failed(session, DialFailure.TIMEOUT, now)

    def excuse(self, secs: float) -> None:
        """Let all dials take longer by the seconds in which this process stood still."""
        for session in (*self._dialer, *(session for session, _ in self._short)):
            session.deadline += secs

    def dial_waiting(self, now: float) -> None:
        """Begin the dials for which there was no descriptor."""
        for _ in range(len(self._short)):
            session, answer = self._short.popleft()
            if session.state is CLOSED:
                continue
            try:
                if session.deadline <= now:
                    raise dial.DialError(errno.EMFILE)
                self._begin(session, answer)
            except dial.DialError as error:
                self.dial(session, self._gate.failed(session.ticket, error.reason, now), now)

    def forget(self, session: Session) -> None:
        """A session has ended, whether it is here or not."""
        self._dialer.discard(session)

    def _begin(self, session: Session, answer: Connect) -> None:
        """Begin the dial, or wait for a descriptor to begin it with. Raises DialError."""
        try:
            if answer.preconnected_fd >= 0:
                backend = socket.socket(fileno=answer.preconnected_fd)
            else:
                backend = dial.begin(answer.address, self.ceiling)
        except dial.DialError as error:
            if not error.may_wait:
                raise
            self._short.append((session, answer))
            self._pause(os.strerror(errno.EMFILE))
            return
        try:
            self._watch(backend, session.downward)
        except OSError as error:
            backend.close()
            raise dial.DialError(error.errno or 0) from None
        session.attach(backend)
        self._dialer.add(session)

    def _shakes_hands(self, session: Session, now: float) -> bool:
        """Go on with the handshake with a backend; return whether it is over."""
        backend = session.backend
        assert backend is not None
        try:
            if not isinstance(backend, TlsSocket):
                if self._tls is None:
                    raise ConnectionAbortedError
                say_prefix(session)
                client = session.client
                alpn = client.agreed_protocol() if isinstance(client, TlsSocket) else ""
                backend = self._tls.wrap(backend, session.server_name, alpn)
                session.attach(backend)
            return backend.shake_hands()
        except OSError as error:
            self._failed(session, DialFailure.HANDSHAKE, now, _complaint_of(error))
            return False

    def _failed(self, session: Session, reason: DialFailure, now: float, why: str = "") -> None:
        assert session.backend is not None
        self._dialer.discard(session)
        self._unwatch(session.backend)
        if isinstance(session.backend, TlsSocket):
            session.backend.part()
        session.backend.close()
        session.backend = None
        session.downward.read_to_eagain = False
        self.dial(session, self._gate.failed(session.ticket, reason, now, why), now)


def _complaint_of(error: OSError) -> str:
    """Return why a handshake failed, in words of OpenSSL; "" if it says nothing."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        if error.reason:
            return error.reason.lower().replace("_", " ")
        # `ssl` has no word for it: "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"
        return str(error).rpartition("] ")[2].partition(" (")[0]
    return ""


def say_prefix(session: Session) -> None:
    """Send the backend its prefix. A new connection takes all of it: its buffer is empty."""
    assert session.backend is not None
    if session.prefix and session.backend.send(session.prefix) < len(session.prefix):
        raise BrokenPipeError
    session.prefix = b""
