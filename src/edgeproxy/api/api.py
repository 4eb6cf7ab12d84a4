"""Puts the API together, and starts it: imported only where it is enabled."""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import TYPE_CHECKING

from edgeproxy.api.guard import Guard
from edgeproxy.api.routes import api
from edgeproxy.api.server import Server
from edgeproxy.api.settings import ApiSettings, token_of
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.descriptors import ceiling
from edgeproxy.errors import ConfigError
from edgeproxy.log import EventLog
from edgeproxy.registry.registry import Registry
from edgeproxy.store.choice import nodes_in, registrations_in
from edgeproxy.values import ListenAddress, Secret

if TYPE_CHECKING:
    from edgeproxy.process.control_plane import ControlPlane

log = EventLog("api")

WRITE_WAIT_SECS = 2.0
"""How long somebody else's read or write of a file is waited for; callers wait, too."""


class Api:
    """The API that is being served.

    Attributes:
        registry: What it asks.
        server: What serves it.
    """

    def __init__(
        self, registry: Registry, server: Server, guard: Guard, settings: ApiSettings, token: Secret
    ) -> None:
        self.registry = registry
        self.server = server
        self._guard = guard
        self._settings = settings
        self._token = token
        self._fault = ""
        self._watching = asyncio.ensure_future(registry.watch())

    def look(self) -> bool:
        """Read the file of the token again; one that cannot be used changes nothing."""
        fault = ""
        try:
            token = token_of(self._settings)
        except ConfigError as error:
            fault = str(error)
            if fault != self._fault:
                log.warning("api_token_bad", reason=fault)
        else:
            if token.reveal() != self._token.reveal():
                self._token = token
                self._guard.demand(token)
                log.info("api_token_changed")
        self._fault = fault
        return False

    def stop(self) -> None:
        """The proxy is draining: no lease expires any more, and nothing is written."""
        self.registry.stopping = True
        self._watching.cancel()

    async def close(self) -> None:
        """Answer nobody any more."""
        await self.server.close()
        self.registry.close()


async def start(
    plane: ControlPlane, admission: Admission, metrics: Metrics, listening: socket.socket
) -> Api:
    """Serve the API of this plane on a listening socket."""
    settings = plane.config.api
    address = ListenAddress(*listening.getsockname()[:2])
    registry = Registry(
        settings,
        registrations_in(plane.store, settings.home, address, WRITE_WAIT_SECS),
        nodes_in(plane.store, WRITE_WAIT_SECS),
        admission,
        plane.status,
        metrics,
        plane.follow_database,
        lambda: plane.backends,
    )
    token = token_of(settings)
    guard = api(registry, settings, token)
    server = Server(guard, settings.timeout_secs, *_room())
    await registry.load()
    made = Api(registry, server, guard, settings, token)
    await server.serve(listening)
    log.info("api", listen=str(address), ttl_secs=settings.heartbeat_ttl_secs, token=bool(token))
    return made


def _room() -> tuple[int, int]:
    """Return how many callers there may be, and the first descriptor that none of them gets.

    They have a quarter of all descriptors, so that they keep nobody's clients out, and half of
    those that the engine leaves, so that heartbeats are heard when it has all others.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ceiling(), ceiling()
    return soft // 4, (ceiling() + soft) // 2
