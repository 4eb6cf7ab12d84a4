"""Joins the engine to `core`: asks for each decision, counts it, and logs refusals and failures.

Runs on the engine's gate thread. It makes no decision of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from edgeproxy.core.admission.access import Denied
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.record import ConnectionRecord, of_refused, of_session
from edgeproxy.core.admission.ticket import Blame, Refusal, Ticket
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.choice import Reason
from edgeproxy.engine.contract import (
    Answer,
    Client,
    CloseReason,
    Connect,
    DialFailure,
    HandshakeFailure,
    Identified,
    NeedMore,
    Outcome,
    Preamble,
    Refuse,
)
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.preamble import PreambleFault, PreambleInfo, PreambleParser
from edgeproxy.gate.proxy_header_writer import ClientIdentity, ProxyHeaderWriter
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.log import EventLog, Throttle
from edgeproxy.wire import proxy_v2
from edgeproxy.wire.proxy_header import Endpoint

log = EventLog("gate")

QUIET_SECS = 10.0
"""Seconds between two log lines for the same kind of refusal or failed dial."""

BLAME: dict[str, Blame] = {DialFailure.LOCAL: Blame.HOST, DialFailure.NO_PORT: Blame.PATH}

HINTS: dict[str, str] = {
    Reason.NO_BACKEND: "no healthy backend has a weight; see `edgeproxy db show`",
    Reason.FULL: "every backend is at its hard_limit; see `edgeproxy node limits`",
    Reason.DOWN: "probes, breakers, leases or `edgeproxy drain` exclude every backend",
    Reason.UNREACHABLE: "the backends that were tried did not answer",
    Reason.NO_RESOURCES: "this host has no descriptors or ports left; raise `ulimit -n`",
    PreambleFault.PROXY_UNTRUSTED: "see EDGEPROXY_PROXY_PROTOCOL_IN",
    PreambleFault.PROXY_MALFORMED: "the load balancer in front must send a PROXY header first",
    PreambleFault.HELLO_MALFORMED: "this listener expects TLS with a server name",
    PreambleFault.NAME_UNKNOWN: "see EDGEPROXY_ROUTES and the table edgeproxy_routes",
    PreambleFault.PREAMBLE_INCOMPLETE: "see EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS",
    HandshakeFailure.HANDSHAKE_FAILED: "no TLS 1.2 or 1.3, or one side rejected a certificate",
    HandshakeFailure.HANDSHAKE_TIMEOUT: "see EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS",
    Denied.DENIED: "see EDGEPROXY_ALLOW and EDGEPROXY_DENY",
    Denied.CLIENT_FULL: "see EDGEPROXY_MAX_CONNS_PER_CLIENT",
    Denied.RATE_LIMITED: "see EDGEPROXY_RATE_LIMIT_MAX_REQUESTS",
}


class AdmissionGate:
    """Implements `engine.contract.Gate`.

    `preamble_parser` knows the policies of listeners, `header_writer` writes PROXY headers.
    `backend_tls_names` has the TLS name of the backends of each app; "" stands for all others.
    """

    def __init__(
        self,
        admission: Admission,
        metrics: Metrics,
        preamble_parser: PreambleParser,
        connect_timeout_secs: float,
        ended: Callable[[ConnectionRecord], object] | None = None,
        warm_pool: WarmPool | None = None,
        header_writer: ProxyHeaderWriter | None = None,
        backend_tls_names: Mapping[str, str] | None = None,
    ) -> None:
        """`ended` is called with the record of each finished connection; it must not block."""
        self._admission = admission
        self._metrics = metrics
        self._preamble_parser = preamble_parser
        self._backend_tls_names = backend_tls_names or {}
        self._header_writer = header_writer or ProxyHeaderWriter((), "")
        self._connect_timeout_secs = connect_timeout_secs
        self._ended = ended
        self._warm_pool = warm_pool
        self._throttles: dict[str, Throttle] = defaultdict(lambda: Throttle(QUIET_SECS))

    def preamble_read(
        self, client: Client, preamble: Preamble, now: float
    ) -> NeedMore | Identified | Refuse:
        """Return what the preamble says, or that it is incomplete, or why it is refused."""
        answer = self._preamble_parser.preamble_read(client, preamble)
        if isinstance(answer, Refuse):
            self.client_lost(client, answer.reason, now)
        return answer

    def client_lost(self, client: Client, reason: str, now: float) -> None:
        """A client has left, or was refused, before it was opened."""
        scope = self._preamble_parser.policies[client.listener].scope
        self._tell_refused(client.address, scope, reason)
        self._refused(reason, client.address, scope, now)

    def opened(self, client: Client, now: float) -> Answer:
        """Give a new client its backend, or refuse it."""
        address, about = client.address, client.about
        scope = self._preamble_parser.policies[client.listener].scope
        if about is not None and isinstance(about, PreambleInfo) and about.app is not None:
            scope = about.app
        ticket = self._admission.admit(address, scope, now)
        if isinstance(ticket, Refusal):
            self._tell_refused(address, scope, ticket.reason)
            return self._refused(ticket.reason, address, scope, now)
        self._metrics.accepted += 1
        self._metrics.accepted_by_app[scope] += 1
        if self._header_writer.is_wanted:
            ticket.present(self._presented(client))
        return self._connect(ticket, now)

    def dialed(self, ticket: Ticket, secs: float, now: float) -> None:
        """The backend answered."""
        self._admission.dialed(ticket, secs, now)

    def failed(self, ticket: Ticket, reason: str, now: float, why: str = "") -> Answer:
        """Give the client its next backend, or refuse it."""
        self._metrics.dial_failures[reason] += 1
        backend = ticket.backend
        blame = BLAME.get(reason, Blame.BACKEND)
        answer = self._admission.failed(ticket, now, blame)
        suppressed = None
        if blame is not Blame.HOST:
            suppressed = self._throttles["dial_failed"].admit(now)
        if suppressed is not None:
            log.warning(
                "dial_failed",
                backend=backend.id,
                address=backend.address,
                reason=reason,
                **({"why": why} if why else {}),
                suppressed=suppressed,
            )
        if isinstance(answer, Refusal):
            self._tell_end(ticket, 0.0, 0, 0, str(answer.reason))
            return self._refused(answer.reason, ticket.client, ticket.scope, now)
        self._metrics.failovers += 1
        return self._connect(answer, now)

    def closed(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """The session has ended: release its slot and count it."""
        self._admission.closed(
            ticket,
            now,
            outcome.bytes_in,
            outcome.bytes_out,
            without_answer=_is_without_answer(outcome),
        )
        metrics = self._metrics
        metrics.closed[outcome.reason] += 1
        metrics.bytes_in += outcome.bytes_in
        metrics.bytes_out += outcome.bytes_out
        self._tell_end(ticket, outcome.secs, outcome.bytes_in, outcome.bytes_out, outcome.reason)

    def tick(self, now: float) -> None:
        """Sweep what has expired, and refill the warm pool."""
        self._admission.tick(now)
        if self._warm_pool is not None:
            self._warm_pool.tick(self._admission.table.candidates, now)

    def _connect(self, ticket: Ticket, now: float) -> Connect:
        backend = ticket.backend
        preconnected_fd = -1
        if self._warm_pool is not None:
            assert ticket.held is not None
            preconnected_fd = self._warm_pool.take(ticket.held, now)
        prefix = b""
        if ticket.details is not None and ticket.details.presented is not None:
            prefix = self._header_writer.prefix(ticket.details.presented, backend.app)
        address = (backend.wg_ip, backend.port)
        name = (
            self._backend_tls_names.get(backend.app, self._backend_tls_names.get("", ""))
            if self._backend_tls_names
            else ""
        )
        return Connect(ticket, address, self._connect_timeout_secs, preconnected_fd, prefix, name)

    def _presented(self, client: Client) -> ClientIdentity:
        """Return what a PROXY header says of a client."""
        # Only clients of Unix sockets have no port.
        source = Endpoint(client.address, client.port) if client.port else None
        about, destination, name, alpn, tls = client.about, None, "", b"", b""
        if isinstance(about, TlsInfo):
            name, alpn = about.server_name, about.alpn.encode()
            tls = proxy_v2.tls_of(about.version, about.has_certificate, about.common_name)
            about = about.about
        if isinstance(about, PreambleInfo):
            destination = about.destination
            name = name or about.server_name
            if not tls:
                alpn, tls = about.alpn, about.tls
        if destination is None and client.local is not None:
            destination = Endpoint(*client.local)
        unique_id = self._header_writer.next_id()
        return ClientIdentity(source, destination, name, unique_id, alpn, tls)

    def _tell_refused(self, address: str, scope: str, reason: str) -> None:
        if self._ended is not None:
            origin = self._admission.locate(address)
            self._ended(of_refused(address, origin, scope, str(reason)))

    def _tell_end(
        self, ticket: Ticket, secs: float, bytes_in: int, bytes_out: int, end: str
    ) -> None:
        if self._ended is not None:
            origin = ticket.origin or self._admission.locate(ticket.client)
            self._ended(of_session(ticket, origin, secs, bytes_in, bytes_out, str(end)))

    def _refused(self, reason: str, client: str, scope: str, now: float) -> Refuse:
        self._metrics.refused[reason] += 1
        self._metrics.refused_by_app[scope][reason] += 1
        suppressed = self._throttles[reason].admit(now)
        if suppressed is not None:
            log.warning(
                "client_refused",
                reason=reason,
                client=client,
                suppressed=suppressed,
                hint=HINTS[reason],
            )
        return Refuse(reason)


def _is_without_answer(outcome: Outcome) -> bool:
    """Return whether the backend ended a session without having sent a byte.

    The outcome does not say which side closed first. A client that has sent something would have
    waited for an answer, so a session without one counts as closed by the backend.
    """
    if outcome.bytes_out:
        return False
    ended = outcome.reason == CloseReason.FINISHED and outcome.bytes_in > 0
    return ended or outcome.reason == CloseReason.BACKEND_RESET
