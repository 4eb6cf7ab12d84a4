"""Puts the API together, and starts it: imported only where it is enabled."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from edgeproxy.control.api.routes import api
from edgeproxy.control.api.server import Server
from edgeproxy.control.api.settings import token_of
from edgeproxy.core.admission import Admission
from edgeproxy.log import EventLog
from edgeproxy.metrics import Metrics
from edgeproxy.registry import Registry
from edgeproxy.store.nodes import Nodes
from edgeproxy.store.registrations import Registrations
from edgeproxy.value import ListenAddress

if TYPE_CHECKING:
    from edgeproxy.plane import Plane

log = EventLog("api")

WRITE_WAIT_SECS = 2.0
"""How long somebody else's read or write of the database is waited for; callers wait, too."""


class Api:
    """The API that is being served.

    Attributes:
        registry: What it asks.
        server: What serves it.
    """

    def __init__(self, registry: Registry, server: Server) -> None:
        self.registry = registry
        self.server = server
        self._watching = asyncio.ensure_future(registry.watch())

    def stop(self) -> None:
        """The proxy is draining: no lease expires any more, and nothing is written."""
        self.registry.stopping = True
        self._watching.cancel()

    async def close(self) -> None:
        """Answer nobody any more."""
        await self.server.close()
        self.registry.close()


async def start(
    plane: Plane, admission: Admission, metrics: Metrics, listening: socket.socket
) -> Api:
    """Serve the API of this plane on a listening socket."""
    settings, path = plane.config.api, plane.config.database.path
    registry = Registry(
        settings,
        Registrations(path, WRITE_WAIT_SECS),
        Nodes(path, WRITE_WAIT_SECS),
        admission,
        plane.observation,
        metrics,
        plane.follow_database,
        lambda: plane.backends,
    )
    token = token_of(settings)
    server = Server(api(registry, settings, token), settings.timeout_secs)
    await registry.load()
    made = Api(registry, server)
    await server.serve(listening)
    address = ListenAddress(*listening.getsockname()[:2])
    log.info("api", listen=str(address), ttl_secs=settings.ttl_secs, token=bool(token))
    return made
