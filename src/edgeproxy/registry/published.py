"""The routing table in force, as the registry reads it, publishes it and marks backends in it.

A change counts when the gate uses it: `publish` and `mark` wait for the gate.
For the control plane's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.leases import Leases

T = TypeVar("T")

GATE_SECS = 5.0
"""How long the gate may take to answer."""
MARKED_AT_ONCE = 100
"""Backends that are marked between two clients."""


class PublishedTable:
    """The backends in force.

    `follow` reads the database and publishes what it holds. `in_force` returns the backends that
    were published last; a backend that is no longer among them loses its lease.
    """

    def __init__(
        self,
        admission: Admission,
        status: Status,
        leases: Leases,
        follow: Callable[[], Awaitable[object]],
        in_force: Callable[[], tuple[Backend, ...]],
    ) -> None:
        self._admission = admission
        self._status = status
        self._leases = leases
        self._follow = follow
        self._in_force = in_force
        self._seen: tuple[Backend, ...] | None = None
        self._by_id: dict[str, Backend] = {}
        self._counted: tuple[Backend, ...] | None = None
        self._count = 0

    def backends(self) -> dict[str, Backend]:
        """Return the backends in force, by id, and end the leases of all others."""
        in_force = self._in_force()
        if in_force is not self._seen:
            self._seen = in_force
            self._by_id = {backend.id: backend for backend in in_force}
            self._leases.keep(self._by_id)
        return self._by_id

    def count(self) -> int:
        """Return how many backends in force are not deleted."""
        in_force = self._in_force()
        if in_force is not self._counted:
            self._counted = in_force
            self._count = sum(not backend.deleted for backend in in_force)
        return self._count

    async def publish(self) -> None:
        """Publish what the database holds, and wait until the gate uses it."""
        await self._follow()
        await self.on_gate(self._admission.adopt)

    async def mark(self, backend_ids: Collection[str], *, expired: bool) -> None:
        """Note whether the leases of these backends have expired, and wait for the gate."""

        def mark(some: Collection[str]) -> None:
            for backend_id in some:
                live = self._admission.load.known(backend_id)
                if live is not None and live.lease_expired is not expired:
                    self._admission.expire(backend_id, expired)

        ids = list(backend_ids)
        for first in range(0, len(ids), MARKED_AT_ONCE):
            await self.on_gate(partial(mark, ids[first : first + MARKED_AT_ONCE]))

    async def on_gate(self, function: Callable[[], T]) -> T:
        """Return the result of a function that runs on the gate thread."""
        async with asyncio.timeout(GATE_SECS):
            return await self._status.on_gate(function)
