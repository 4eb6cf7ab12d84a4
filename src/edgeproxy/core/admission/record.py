"""The record of a connection that has ended: one line of the access log."""

from __future__ import annotations

from typing import NamedTuple

from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.choice import How

FAILOVER = "failover"


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
        id: The unique id in the PROXY header to the backend; None without one.
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
    id: str | None = None


def of_session(
    ticket: Ticket, origin: Origin | None, secs: float, bytes_in: int, bytes_out: int, end: str
) -> ConnectionRecord:
    """Return the record of a connection that had a ticket."""
    presented = ticket.details.presented if ticket.details is not None else None
    how: How | str = ticket.how if ticket.attempts < 2 else FAILOVER
    return ConnectionRecord(
        ticket.client,
        origin.country if origin else None,
        origin.region if origin else None,
        ticket.scope,
        ticket.backend.id,
        str(how),
        ticket.attempts,
        ticket.details.dial_secs if ticket.details is not None else 0.0,
        secs,
        bytes_in,
        bytes_out,
        end,
        presented.unique_id if presented is not None else None,
    )


def of_refused(client: str, origin: Origin | None, scope: str, end: str) -> ConnectionRecord:
    """Return the record of a connection that was refused before it had a ticket."""
    country, region = (origin.country, origin.region) if origin else (None, None)
    return ConnectionRecord(client, country, region, scope, None, None, 0, 0.0, 0.0, 0, 0, end)
