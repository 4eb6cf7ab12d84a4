"""A client's ticket, which holds its slot on a backend, and the refusal of a client."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from edgeproxy.core.admission.access import Denied
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import Trial
from edgeproxy.core.routing.choice import Choice, Reason
from edgeproxy.core.routing.ranking import Candidate


class Blame(StrEnum):
    """What caused a failed dial."""

    BACKEND = "backend"
    """It did not answer: it is passed over for a while."""
    PATH = "path"
    """This host has no port left towards it; another backend may still work."""
    HOST = "host"
    """This host has no descriptors or memory left; no other backend would work."""


class Refusal(NamedTuple):
    """A client is refused."""

    reason: Reason | Denied


class TicketDetails:
    """Optional details of a ticket, allocated only if a feature needs them.

    Without them an open connection takes less memory.

    Attributes:
        entered: The key for `AccessControl.leave`; None if the client is not counted.
        dialed_at: When the backend answered (monotonic seconds), or 0.
        dial_secs: How long the dial took.
        presented: The client's identity for the PROXY header; None if backends get none.
        trial: The breaker's trial, if this session is one; else None.
    """

    __slots__ = ("dial_secs", "dialed_at", "entered", "presented", "trial")

    def __init__(self, entered: str | None) -> None:
        self.entered = entered
        self.presented: Any = None
        self.dialed_at = 0.0
        self.dial_secs = 0.0
        self.trial: Trial | None = None


class Inbound(NamedTuple):
    """How a client came in, for the access log.

    Attributes:
        port: 0 for a client of a Unix socket.
        listener: Where it connected to, as configured.
        server_name: In normal form; None without one.
        alpn, tls: The protocol and the version of TLS that were agreed on; None without.
    """

    port: int
    listener: str
    server_name: str | None
    alpn: str | None
    tls: str | None


class LoggedDetails(TicketDetails):
    """The details of a ticket where there is an access log.

    Attributes:
        inbound: How the client came in.
    """

    __slots__ = ("inbound",)

    def __init__(self, entered: str | None) -> None:
        super().__init__(entered)
        self.inbound: Inbound | None = None


class Ticket:
    """One client's reserved slot on one backend at a time.

    Attributes:
        client: The client's address.
        scope: The app that its listener or server name serves, or `ALL_APPS`.
        backend: The backend of the present attempt, or of the last one.
        how: How that backend was chosen.
        origin: Where the client comes from; None if no decision needed it.
        attempts: Number of backends tried, the present one included.
        tried: Ids of the backends that could not be dialed.
        held: The candidate on which a slot is reserved; None once it is released.
        details: See `TicketDetails`; None if no feature needs them.
    """

    __slots__ = (
        "attempts",
        "backend",
        "client",
        "details",
        "held",
        "how",
        "origin",
        "scope",
        "tried",
    )

    def __init__(self, client: str, scope: str, choice: Choice) -> None:
        self.client = client
        self.scope = scope
        self.attempts = 0
        self.tried: tuple[str, ...] = ()
        self.held: Candidate | None = None
        self.details: TicketDetails | None = None
        self.origin = choice.origin
        self.backend: Backend = choice.candidate.backend
        self.how = choice.how

    def present(self, presented: object) -> None:
        """Keep the client's identity for the PROXY header."""
        if self.details is None:
            self.details = TicketDetails(None)
        self.details.presented = presented

    def __repr__(self) -> str:
        return f"<Ticket {self.client} → {self.backend.id} {self.how} attempt {self.attempts}>"
