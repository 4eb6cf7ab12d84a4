"""Builds the API and starts it. Imported only if the settings enable the API."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import TYPE_CHECKING

from edgeproxy.api.application import api
from edgeproxy.api.guard import Guard
from edgeproxy.api.http1.connection_limits import Room
from edgeproxy.api.http1.server import Server
from edgeproxy.api.settings import ApiSettings, token_of
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.descriptors import API_SHARE, ceiling, ceiling_of
from edgeproxy.errors import ConfigError
from edgeproxy.log import EventLog
from edgeproxy.registry.own_callers import OwnCallers
from edgeproxy.registry.registry import Registry
from edgeproxy.store.choice import nodes_in, registrations_in
from edgeproxy.values import ListenAddress, Secret

if TYPE_CHECKING:
    from edgeproxy.control.observe.status import Status
    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.core.backends.destination import Own
    from edgeproxy.engine.contract import SessionEnds
    from edgeproxy.store.feed import Store

log = EventLog("api")

WRITE_WAIT_SECS = 2.0
"""How long a write waits for another program that has locked the file; its caller waits too."""


class Api:
    """The API that is being served."""

    def __init__(
        self, registry: Registry, server: Server, guard: Guard, settings: ApiSettings, token: Secret
    ) -> None:
        self._registry = registry
        self._server = server
        self._guard = guard
        self._settings = settings
        self._token = token
        self._fault = ""
        self._watching = asyncio.ensure_future(registry.watch())

    def refresh(self) -> bool:
        """Read the token file again; a file that cannot be used changes nothing.

        Returns False: there is no new table.
        """
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
        """Let no lease expire any more: the proxy is draining."""
        self._watching.cancel()

    def stop_listening(self) -> None:
        """Leave new connections to a successor."""
        self._server.stop_listening()

    async def close(self) -> None:
        """Stop answering."""
        await self._server.close()
        self._registry.close()


async def start(
    settings: ApiSettings,
    store: Store,
    admission: Admission,
    status: Status,
    metrics: Metrics,
    follow_database: Callable[[], Awaitable[object]],
    backends: Callable[[], tuple[Backend, ...]],
    why_skipped: Callable[[str], str | None],
    is_stopping: Callable[[], bool],
    own: Callable[[], Own],
    ends: Callable[[Container[object]], Iterable[SessionEnds]],
    listening: socket.socket,
    token: Secret,
) -> Api:
    """Serve the API on a listening socket to callers that show this token.

    `follow_database` returns when the content of the store is in force; `backends` returns the
    backends in force, `why_skipped` why a row is not used; `is_stopping` tells whether the proxy
    accepts no more clients; `own` returns the addresses of this proxy, `ends` those of the
    sessions with these tickets.
    """
    address = ListenAddress(*listening.getsockname()[:2])
    registry = Registry(
        settings,
        registrations_in(store, settings.home, address, WRITE_WAIT_SECS),
        nodes_in(store, WRITE_WAIT_SECS),
        admission,
        status,
        metrics,
        follow_database,
        backends,
        why_skipped,
        is_stopping,
        own,
    )
    own_callers = OwnCallers(address.port, backends, ends, status)
    guard = api(registry, settings, token, own_callers)
    server = Server(guard, registry.missed_heartbeats, settings.timeout_secs, _room())
    await registry.load()
    serving = Api(registry, server, guard, settings, token)
    await server.serve(listening)
    log.info("api", listen=str(address), ttl_secs=settings.heartbeat_ttl_secs, token=bool(token))
    return serving


def _room() -> Room:
    """Return how many callers there may be, and up to which descriptor.

    Callers get a quarter of all descriptors, so that clients always get some. They also get half
    of those that the engine leaves, so that heartbeats arrive when the engine uses all of its own;
    and half of what is left then is the reserve of registered backends.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Room(ceiling(), ceiling(), ceiling())
    highest = ceiling_of(API_SHARE)
    return Room(soft // 4, highest, (highest + soft) // 2)
