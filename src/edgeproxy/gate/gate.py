"""Joins the engine to `core`: asks for each decision, counts it, and logs refusals and failures.

Runs on the engine's gate thread. It makes no decision of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgeproxy.core.admission.access import Denied
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.arrivals import Arrival
from edgeproxy.core.admission.client_key import site_of
from edgeproxy.core.admission.loops import LoopGuard
from edgeproxy.core.admission.record import FAILOVER, ConnectionRecord
from edgeproxy.core.admission.ticket import Blame, Refusal, Ticket
from edgeproxy.core.metrics import UNKNOWN, Metrics
from edgeproxy.core.routing.choice import Reason
from edgeproxy.core.routing.table import ALL_APPS
from edgeproxy.engine.contract import (
    Answer,
    Client,
    CloseReason,
    Connect,
    DialFailure,
    Enter,
    FirstAnswer,
    HandshakeFailure,
    Identified,
    NeedMore,
    Preamble,
    Refuse,
    Wait,
)
from edgeproxy.engine.session_states import Outcome
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.connection_records import ConnectionRecords
from edgeproxy.gate.preamble import PreambleFault, PreambleInfo, PreambleParser
from edgeproxy.gate.proxy_header_writer import ClientIdentity, ProxyHeaderWriter
from edgeproxy.gate.warm_pool import WarmPool
from edgeproxy.log import EventLog, Throttle
from edgeproxy.wire import proxy_v2
from edgeproxy.wire.proxy_header import Endpoint

log = EventLog("gate")

QUIET_SECS = 10.0
"""Seconds between two log lines for the same kind of refusal or failed dial."""

FREED_SOON = (Reason.FULL, Denied.CLIENT_FULL)
"""What an ending connection may change: its slot counts until the engine has told its end."""

BLAME: dict[str, Blame] = {DialFailure.LOCAL: Blame.HOST, DialFailure.NO_PORT: Blame.PATH}

HINTS: dict[str, str] = {
    Reason.NO_BACKEND: "no healthy backend has a weight; see `edgeproxy db show`",
    Reason.FULL: "every backend is at its hard_limit; see `edgeproxy node limits`",
    Reason.DOWN: "probes, breakers, leases or `edgeproxy drain` exclude every backend",
    Reason.UNREACHABLE: "the backends that were tried did not answer",
    Reason.LOOP: "a backend leads back to this proxy; see `edgeproxy db show` there and here",
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
    Denied.CLIENT_SETUP_FULL: "too many of one client are not admitted yet; raise `ulimit -n`",
    Denied.RATE_LIMITED: "see EDGEPROXY_RATE_LIMIT_MAX_REQUESTS",
}


class _Place(NamedTuple):
    """A client that waits for a slot, and why it has none."""

    client: Client
    scope: str
    reason: Reason | Denied


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
        loops: LoopGuard | None = None,
    ) -> None:
        """`ended` is called with the record of each finished connection; it must not block."""
        self._loops = loops or LoopGuard()
        self._admission = admission
        self._metrics = metrics
        self._decisions = metrics.decisions
        self._note_session_secs = metrics.session_secs.add
        self._note_first_byte_secs = metrics.first_byte_secs.add
        self._preamble_parser = preamble_parser
        self._backend_tls_names = backend_tls_names or {}
        self._header_writer = header_writer or ProxyHeaderWriter((), "")
        self._connect_timeout_secs = connect_timeout_secs
        self._records = (
            None if ended is None else ConnectionRecords(admission.locate, preamble_parser, ended)
        )
        self._warm_pool = warm_pool
        self._throttles: dict[str, Throttle] = defaultdict(lambda: Throttle(QUIET_SECS))

    def arrived(self, client: Client, now: float) -> Enter | Refuse:
        """Let a client begin with its preamble or handshake, or refuse it.

        Where a PROXY header will tell who it is, only the load balancer can be checked now.
        """
        arrival = Arrival()
        reason: str | None
        if self._preamble_parser.policies[client.listener].expects_proxy_header:
            reason = self._preamble_parser.untrusted(client)
        else:
            reason = self._admission.access.arrive(arrival, client.address, now)
        if reason is not None:
            return self._turned_away(client, client.address, reason, now)
        return Enter(arrival)

    def preamble_read(
        self, client: Client, preamble: Preamble, now: float
    ) -> NeedMore | Identified | Refuse:
        """Return what the preamble says, or that it is incomplete, or why it is refused."""
        arrival = client.entry if isinstance(client.entry, Arrival) else Arrival()

        def identify(address: str) -> str | None:
            is_known = bool(arrival.client)
            return None if is_known else self._admission.access.arrive(arrival, address, now)

        answer = self._preamble_parser.preamble_read(client, preamble, identify)
        if isinstance(answer, Refuse):
            self._depart(client)
            address = arrival.client or client.address
            return self._turned_away(client, address, answer.reason, now)
        return answer

    def client_lost(self, client: Client, reason: str, now: float) -> None:
        """A client that was let in has left, or was given up, before it was opened."""
        self._depart(client)
        if reason != CloseReason.ABORTED:
            self._turned_away(client, client.address, reason, now)

    def _depart(self, client: Client) -> None:
        if isinstance(client.entry, Arrival):
            self._admission.access.depart(client.entry)

    def _turned_away(self, client: Client, address: str, reason: str, now: float) -> Refuse:
        """Tell of a client that is refused before it was opened."""
        scope = self._preamble_parser.policies[client.listener].scope
        if self._records is not None:
            self._records.refused(client, address, scope, reason)
        return self._refused(reason, address, scope, now)

    def opened(self, client: Client, now: float) -> FirstAnswer:
        """Give a new client its backend, let it wait for a slot, or refuse it."""
        about = client.about
        scope = self._preamble_parser.policies[client.listener].scope
        if about is not None and isinstance(about, PreambleInfo) and about.app is not None:
            scope = about.app
        arrival = client.entry
        if arrival is not None:
            assert isinstance(arrival, Arrival)
            if arrival.client != client.address:  # its listener's policy has changed since
                self._depart(client)
                arrival = None
        ticket = self._ticket(client, scope, now, arrival)
        if isinstance(ticket, Refusal):
            if ticket.reason in FREED_SOON:
                return self._wait(_Place(client, scope, ticket.reason), ticket.reason)
            return self._refuse(client, scope, ticket.reason, now)
        return self._admitted(ticket, client, scope, now)

    def asked_again(self, place: _Place, now: float, *, is_last: bool) -> FirstAnswer:
        """Give a client that waits its backend, if a slot is free now."""
        client, scope, reason = place
        ticket = self._ticket(client, scope, now, again=reason is Reason.FULL)
        if not isinstance(ticket, Refusal):
            return self._admitted(ticket, client, scope, now)
        if is_last or ticket.reason not in FREED_SOON:
            return self._refuse(client, scope, ticket.reason, now)
        if reason is not Reason.FULL:  # a token that was taken stays taken
            place = _Place(client, scope, ticket.reason)
        return self._wait(place, ticket.reason)

    def _wait(self, place: _Place, reason: Reason | Denied) -> Wait:
        """Let a client wait for a slot of its app or, if it is full itself, for one of its own."""
        access = self._admission.access
        key = access.key(place.client.address)
        line = reason, place.scope if reason is Reason.FULL else access.full(key)
        return Wait(place, line, key, site_of(key))

    def frees(self, ticket: Ticket) -> list[tuple[Reason | Denied, str]]:
        """Return what others may wait for that the end of this ticket gives back."""
        app, key = ticket.backend.app, self._admission.access.key(ticket.client)
        clients = [(Denied.CLIENT_FULL, client) for client in (key, site_of(key))]
        return [(Reason.FULL, ALL_APPS), (Reason.FULL, app), *clients]

    def _ticket(
        self,
        client: Client,
        scope: str,
        now: float,
        arrival: Arrival | None = None,
        *,
        again: bool = False,
    ) -> Ticket | Refusal:
        ticket = self._admission.admit(client.address, scope, now, arrival, again=again)
        if self._loops.is_watching and isinstance(ticket, Ticket):
            return self._past_loops(ticket, now)
        return ticket

    def _admitted(self, ticket: Ticket, client: Client, scope: str, now: float) -> Connect:
        self._metrics.accepted += 1
        self._metrics.accepted_by_app[scope] += 1
        if self._header_writer.is_wanted:
            ticket.present(self._presented(client))
        if self._records is not None:
            self._records.note_inbound(ticket, client)
        self._loops.begun(now)
        return self._connect(ticket, now)

    def dialed(self, ticket: Ticket, secs: float, now: float) -> None:
        """The backend answered."""
        self._admission.dialed(ticket, secs, now)

    def failed(self, ticket: Ticket, reason: str, now: float, why: str = "") -> Answer:
        """Give the client its next backend, or refuse it."""
        self._metrics.dial_failures[reason] += 1
        backend = ticket.backend
        blame = BLAME.get(reason, Blame.BACKEND)
        if blame is not Blame.HOST and ticket.held is not None:
            told = f"{reason}: {why}" if why else str(reason)
            ticket.held.live.counters.note_error(told, now)
        answer = self._admission.failed(ticket, now, blame)
        if self._loops.is_watching and isinstance(answer, Ticket):
            answer = self._past_loops(answer, now)
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
            self._loops.ended(ticket, unanswered=False)
            if self._records is not None:
                self._records.unserved(ticket, answer.reason)
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
        self._loops.ended(ticket, unanswered=not outcome.bytes_out)
        metrics = self._metrics
        metrics.closed[outcome.reason] += 1
        metrics.bytes_in += outcome.bytes_in
        metrics.bytes_out += outcome.bytes_out
        self._note_session_secs(outcome.secs)
        if outcome.first_byte_secs is not None:
            self._note_first_byte_secs(outcome.first_byte_secs)
        if self._records is not None:
            self._records.closed(ticket, outcome)

    def stood_still(self, secs: float) -> None:
        """Give connections on trial as much longer."""
        self._admission.excuse(secs)

    def tick(self, now: float) -> None:
        """Sweep what has expired, and refill the warm pool."""
        self._admission.tick(now)
        self._loops.tick(now)
        if self._warm_pool is not None:
            self._warm_pool.tick(self._admission.table.candidates, now)

    def _past_loops(self, ticket: Ticket, now: float) -> Ticket | Refusal:
        """Send a client past the backends that lead it back here."""
        answer: Ticket | Refusal = ticket
        while isinstance(answer, Ticket):
            client, backend_id = answer.client, answer.backend.id
            if self._loops.is_barred(client, backend_id):
                # No fault of the backend: a client must not be able to take it from others.
                answer = self._admission.failed(answer, now, Blame.PATH)
            elif self._loops.is_suspected(client, backend_id, now):
                sends_elsewhere = self._loops.may_be_elsewhere(client, backend_id)
                blame = Blame.PATH if sends_elsewhere else Blame.HOST  # HOST: no other is tried
                answer = self._admission.failed(answer, now, blame)
            else:
                return answer
        return Refusal(Reason.LOOP)

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

    def _refuse(self, client: Client, scope: str, reason: Reason | Denied, now: float) -> Refuse:
        if self._records is not None:
            self._records.refused(client, client.address, scope, reason)
        return self._refused(reason, client.address, scope, now)

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

    A client that has sent something would have waited for an answer, so a session without one
    counts as ended by the backend, whichever side closed first.
    """
    if outcome.bytes_out:
        return False
    ended = outcome.reason == CloseReason.FINISHED and outcome.bytes_in > 0
    return ended or outcome.reason == CloseReason.BACKEND_RESET
