"""Joins the engine to `core`: asks for each decision, counts it, and logs refusals and failures.

Runs on the engine's gate thread. It makes no decision of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from edgeproxy.core.admission.access import Denied
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.record import (
    FAILOVER,
    PROXY,
    ConnectionRecord,
    of_refused,
    of_session,
)
from edgeproxy.core.admission.ticket import Arrival, Blame, LoggedDetails, Refusal, Ticket
from edgeproxy.core.metrics import UNKNOWN, Metrics
from edgeproxy.core.routing.choice import Reason
from edgeproxy.core.routing.server_names import host_name
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
    Side,
)
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.preamble import PreambleFault, PreambleInfo, PreambleParser
from edgeproxy.gate.proxy_header_writer import ClientIdentity, ProxyHeaderWriter
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.log import EventLog, Throttle
from edgeproxy.wire.proxy_header import Endpoint

log = EventLog("gate")

QUIET_SECS = 10.0
"""Seconds between two log lines for the same kind of refusal or failed dial."""

TURNED_AWAY_BY: dict[str, str] = {
    HandshakeFailure.CLIENT_GONE: Side.CLIENT,
    Reason.UNREACHABLE: Side.BACKEND,
}
"""Who is the cause that a client gets no backend, where that is not this proxy."""

BLAME: dict[str, Blame] = {DialFailure.LOCAL: Blame.HOST, DialFailure.NO_PORT: Blame.PATH}

HINTS: dict[str, str] = {
    Reason.NO_BACKEND: "no healthy backend has a weight; see `edgeproxy db show`",
    Reason.FULL: "every backend is at its hard_limit; see `edgeproxy node limits`",
    Reason.DOWN: "probes, breakers, leases or `edgeproxy drain` exclude every backend",
    Reason.UNREACHABLE: "the backends that were tried did not answer",
    Reason.NO_RESOURCES: "this host has no descriptors or ports left; raise `ulimit -n`",
    HandshakeFailure.CLIENT_GONE: "it closed before its PROXY header, ClientHello or handshake was "
    "complete, as port scans and the health checks of balancers do",
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
        self._decisions = metrics.decisions
        self._note_session_secs = metrics.session_secs.add
        self._note_first_byte_secs = metrics.first_byte_secs.add
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
        self._tell_refused(client, scope, reason)
        self._refused(reason, client.address, scope, now)

    def opened(self, client: Client, now: float) -> Answer:
        """Give a new client its backend, or refuse it."""
        address, about = client.address, client.about
        scope = self._preamble_parser.policies[client.listener].scope
        if about is not None and isinstance(about, PreambleInfo) and about.app is not None:
            scope = about.app
        ticket = self._admission.admit(address, scope, now)
        if isinstance(ticket, Refusal):
            self._tell_refused(client, scope, ticket.reason)
            return self._refused(ticket.reason, address, scope, now)
        self._metrics.accepted += 1
        self._metrics.accepted_by_app[scope] += 1
        if self._header_writer.is_wanted:
            ticket.present(self._presented(client))
        if self._ended is not None and isinstance(ticket.details, LoggedDetails):
            ticket.details.arrival = self._arrival(client)
        return self._connect(ticket, now)

    def dialed(self, ticket: Ticket, secs: float, now: float) -> None:
        """The backend answered."""
        self._admission.dialed(ticket, secs, now)

    def failed(self, ticket: Ticket, reason: str, now: float, why: str = "") -> Answer:
        """Give the client its next backend, or refuse it."""
        self._metrics.dial_failures[reason] += 1
        backend = ticket.backend
        blame = BLAME.get(reason, Blame.BACKEND)
        told = f"{reason}: {why}" if why else str(reason)
        answer = self._admission.failed(ticket, now, blame, told)
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
            reason = answer.reason
            self._tell_end(ticket, Outcome(reason, 0, 0, 0.0), TURNED_AWAY_BY.get(reason, PROXY))
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
        self._note_session_secs(outcome.secs)
        if outcome.first_byte_secs is not None:
            self._note_first_byte_secs(outcome.first_byte_secs)
        if self._ended is not None:
            self._tell_end(ticket, outcome, outcome.ended_by or PROXY)

    def tick(self, now: float) -> None:
        """Sweep what has expired, and refill the warm pool."""
        self._admission.tick(now)
        if self._warm_pool is not None:
            self._warm_pool.tick(self._admission.table.candidates, now)

    def _connect(self, ticket: Ticket, now: float) -> Connect:
        backend = ticket.backend
        origin = ticket.origin
        kind = (
            ticket.how if ticket.attempts == 1 else FAILOVER,
            UNKNOWN if origin is None else origin.region or UNKNOWN,
            backend.region,
        )
        try:
            self._decisions[kind] += 1
        except KeyError:
            self._metrics.first_decided(*kind)
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
        about, destination, name = client.about, None, ""
        if isinstance(about, PreambleInfo | TlsInfo):
            name = host_name(about.server_name) or ""
        if isinstance(about, TlsInfo):
            about = about.about
        if isinstance(about, PreambleInfo):
            destination = about.destination
        if destination is None and client.local is not None:
            destination = Endpoint(*client.local)
        return ClientIdentity(source, destination, name, self._header_writer.next_id())

    def _arrival(self, client: Client) -> Arrival:
        """Return what the access log says of how a client came in."""
        address = self._preamble_parser.policies[client.listener].address
        about, name, alpn, tls = client.about, "", "", ""
        if isinstance(about, PreambleInfo | TlsInfo):
            name = about.server_name
        if isinstance(about, TlsInfo):
            alpn, tls = about.alpn, about.version
        return Arrival(
            client.port,
            address or client.listener,
            host_name(name) if name else None,
            alpn or None,
            tls or None,
        )

    def _tell_refused(self, client: Client, scope: str, reason: str) -> None:
        if self._ended is not None:
            origin = self._admission.locate(client.address)
            by = TURNED_AWAY_BY.get(reason, PROXY)
            arrival = self._arrival(client)
            self._ended(of_refused(client.address, origin, scope, str(reason), str(by), arrival))

    def _tell_end(self, ticket: Ticket, outcome: Outcome, ended_by: str) -> None:
        if self._ended is not None:
            record = of_session(
                ticket,
                ticket.origin or self._admission.locate(ticket.client),
                outcome.secs,
                outcome.bytes_in,
                outcome.bytes_out,
                str(outcome.reason),
                str(ended_by),
                outcome.first_byte_secs,
            )
            self._ended(record)

    def _refused(self, reason: str, client: str, scope: str, now: float) -> Refuse:
        self._metrics.refused[reason] += 1
        self._metrics.refused_by_app[scope][reason] += 1
        suppressed = self._throttles[reason].admit(now)
        if suppressed is not None and reason == HandshakeFailure.CLIENT_GONE:
            log.info("client_left", client=client, suppressed=suppressed, hint=HINTS[reason])
        elif suppressed is not None:
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
