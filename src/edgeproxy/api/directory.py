"""What the API asks of the proxy."""

from __future__ import annotations

from typing import Any, Protocol

from edgeproxy.api.bodies import (
    BackendView,
    Health,
    HeartbeatAccepted,
    Readiness,
    Registration,
    TableView,
)
from edgeproxy.core.admission.explanation import Decision


class Directory(Protocol):
    """The backends of this POP, and how it sees them. For one event loop.

    `caller` is the address that a request comes from. All of them raise FaultError.
    """

    def health(self) -> Health:
        """Return that this process lives."""

    def readiness(self) -> Readiness:
        """Return whether clients would be served."""

    def table(self) -> TableView:
        """Return what is known of the table in force."""

    def views(self) -> list[BackendView]:
        """Return all backends but those that are removed. May run in a thread."""

    def view(self, backend_id: str) -> BackendView:
        """Return one backend."""

    async def register(self, wanted: Registration, caller: str) -> tuple[BackendView, bool]:
        """Store a backend and route to it; return it, and whether it is new."""

    def beat(self, backend_id: str, caller: str) -> HeartbeatAccepted:
        """Renew the lease of a backend."""

    async def deregister(self, backend_id: str, caller: str) -> None:
        """Take a registered backend out of the table and the store."""

    async def change(self, backend_id: str, caller: str, action: str, **values: int) -> BackendView:
        """Do what `edgeproxy node ACTION` does."""

    async def drain(self, backend_id: str, caller: str, draining: bool) -> BackendView:
        """Give a backend no new clients, or clients again."""

    async def explain(self, client: str, scope: str | None) -> Decision:
        """Return which backend a client would get now."""

    async def sessions(self) -> list[dict[str, Any]]:
        """Return the open connections."""
