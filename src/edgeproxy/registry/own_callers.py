"""Recognises callers that are connections which this proxy itself has made.

A client of a listener must never speak to the API under the address of the proxy. Rows that lead to
the API are not used (`core/backends/destination`); this is for a way that no row shows, such as a
prefix that the host routes to itself.

It costs nothing while no backend has had the port of the API. For the control plane's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.geo.address import normalise
from edgeproxy.engine.contract import SessionEnds

Endpoint = tuple[str, int]


class _TicketsTo(NamedTuple):
    """All tickets of backends with this port."""

    port: int

    def __contains__(self, ticket: object) -> bool:
        return isinstance(ticket, Ticket) and ticket.backend.port == self.port


class OwnCallers:
    """The callers of one API at `port`.

    `backends` returns those in force, `ends` the ends of the sessions with these tickets.
    """

    def __init__(
        self,
        port: int,
        backends: Callable[[], tuple[Backend, ...]],
        ends: Callable[[Container[object]], Iterable[SessionEnds]],
        status: Status,
    ) -> None:
        self._port = port
        self._backends = backends
        self._ends = ends
        self._status = status
        self._seen: tuple[Backend, ...] = ()
        self._may_be = False

    async def has(self, caller: Endpoint | None, called: Endpoint | None) -> bool:
        """Return whether the connection from `caller` to `called` was made by this proxy."""
        if not self._may_be:
            backends = self._backends()
            if backends is not self._seen:
                self._seen = backends
                self._may_be = any(each.port == self._port for each in backends)
        if not self._may_be or caller is None or called is None:
            return False
        near, far = (normalise(caller[0]), caller[1]), normalise(called[0])
        tickets = _TicketsTo(self._port)
        return await self._status.on_gate(
            lambda: any(
                each.dialed_from == near and each.ticket.backend.wg_ip == far
                for each in self._ends(tickets)
            )
        )
