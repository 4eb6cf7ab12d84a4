"""Tells the access log of each connection: how its client came in, what became of it, and by whom.

Where there is no access log, there are none of these.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.core.admission.record import PROXY, ConnectionRecord, of_refused, of_session
from edgeproxy.core.admission.ticket import Inbound, LoggedDetails, Ticket
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.choice import Reason
from edgeproxy.engine.contract import Client, HandshakeFailure
from edgeproxy.engine.session_states import Outcome, Side
from edgeproxy.engine.tls import TlsInfo
from edgeproxy.gate.preamble import PreambleInfo, PreambleParser

TURNED_AWAY_BY: dict[str, str] = {
    HandshakeFailure.CLIENT_GONE: Side.CLIENT,
    Reason.UNREACHABLE: Side.BACKEND,
}
"""Who is the cause that a client gets no backend, where that is not this proxy."""


class ConnectionRecords:
    """Makes the records of one proxy. `take` gets each of them, and must not block."""

    def __init__(
        self,
        locate: Callable[[str], Origin],
        preamble_parser: PreambleParser,
        take: Callable[[ConnectionRecord], object],
    ) -> None:
        self._locate = locate
        self._preamble_parser = preamble_parser
        self._take = take

    def note_inbound(self, ticket: Ticket, client: Client) -> None:
        """Keep with a ticket how its client came in."""
        if isinstance(ticket.details, LoggedDetails):
            ticket.details.inbound = self._inbound(client)

    def refused(self, client: Client, address: str, scope: str, reason: str) -> None:
        """A client was refused before it had a ticket."""
        by, inbound = TURNED_AWAY_BY.get(reason, PROXY), self._inbound(client)
        origin = self._locate(address)
        self._take(of_refused(address, origin, scope, str(reason), str(by), inbound))

    def unserved(self, ticket: Ticket, reason: str) -> None:
        """A client was refused after its last failed dial."""
        by = TURNED_AWAY_BY.get(reason, PROXY)
        self._session(ticket, Outcome(reason, 0, 0, 0.0), by)

    def closed(self, ticket: Ticket, outcome: Outcome) -> None:
        """A session has ended."""
        self._session(ticket, outcome, outcome.ended_by or PROXY)

    def _session(self, ticket: Ticket, outcome: Outcome, ended_by: str) -> None:
        record = of_session(
            ticket,
            ticket.origin or self._locate(ticket.client),
            outcome.secs,
            outcome.bytes_in,
            outcome.bytes_out,
            str(outcome.reason),
            str(ended_by),
            outcome.first_byte_secs,
        )
        self._take(record)

    def _inbound(self, client: Client) -> Inbound:
        address = self._preamble_parser.policies[client.listener].address
        about, name, alpn, tls = client.about, "", "", ""
        if isinstance(about, PreambleInfo | TlsInfo):
            name = about.server_name
        if isinstance(about, TlsInfo):
            alpn, tls = about.alpn, about.version
        return Inbound(
            client.port,
            address or client.listener,
            name or None,
            alpn or None,
            tls or None,
        )
