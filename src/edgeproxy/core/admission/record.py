"""The record of a connection that has ended: one line of the access log."""

from __future__ import annotations

from typing import NamedTuple

from edgeproxy.core.admission.ticket import Inbound, LoggedDetails, Ticket
from edgeproxy.core.geo.origin import Origin

FAILOVER = "failover"
PROXY = "proxy"
"""Ends a connection that neither its client nor its backend has ended."""


class ConnectionRecord(NamedTuple):
    """One connection that has ended.

    Attributes:
        client: The address of the client.
        country, region: The origin of the client; None if it is unknown or was not looked up.
        scope: The app it connected to; "" for all apps.
        backend: The id of its backend, or of the last one that was tried; None if there was none.
        how: How the backend was chosen; `failover` if it was not the first one.
        attempts: How many backends were tried.
        dial_secs: How long the backend took to answer.
        secs: How long the connection was open.
        bytes_in: Bytes from the client to the backend.
        bytes_out: Bytes from the backend to the client.
        end: Why it ended: the reason of the close or of the refusal.
        ended_by: Who ended it: `client`, `backend`, or `proxy`, also by turning the client away.
        id: The unique id in the PROXY header to the backend; None without one.
        first_byte_secs: When the first byte of the backend reached the client; None if none did.
        backend_app, backend_region: Of that backend.
        inbound: How the client came in; None where nobody asked for it.
    """

    client: str
    country: str | None
    region: str | None
    scope: str
    backend: str | None
    how: str | None
    attempts: int
    dial_secs: float
    secs: float
    bytes_in: int
    bytes_out: int
    end: str
    ended_by: str = PROXY
    id: str | None = None
    first_byte_secs: float | None = None
    backend_app: str | None = None
    backend_region: str | None = None
    inbound: Inbound | None = None


def of_session(
    ticket: Ticket,
    origin: Origin | None,
    secs: float,
    bytes_in: int,
    bytes_out: int,
    end: str,
    ended_by: str = PROXY,
    first_byte_secs: float | None = None,
) -> ConnectionRecord:
    """Return the record of a connection that had a ticket."""
    details, backend = ticket.details, ticket.backend
    presented = details.presented if details is not None else None
    return ConnectionRecord(
        ticket.client,
        origin.country if origin else None,
        origin.region if origin else None,
        ticket.scope,
        backend.id,
        str(ticket.how) if ticket.attempts < 2 else FAILOVER,
        ticket.attempts,
        details.dial_secs if details is not None else 0.0,
        secs,
        bytes_in,
        bytes_out,
        end,
        ended_by,
        presented.unique_id if presented is not None else None,
        first_byte_secs,
        backend.app,
        backend.region,
        details.inbound if isinstance(details, LoggedDetails) else None,
    )


def of_refused(
    client: str,
    origin: Origin | None,
    scope: str,
    end: str,
    ended_by: str = PROXY,
    inbound: Inbound | None = None,
) -> ConnectionRecord:
    """Return the record of a connection that was refused before it had a ticket."""
    country, region = (origin.country, origin.region) if origin else (None, None)
    return ConnectionRecord(
        *(client, country, region, scope, None, None, 0, 0.0, 0.0, 0, 0, end, ended_by),
        inbound=inbound,
    )
