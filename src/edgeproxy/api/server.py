"""Serves the API with uvicorn's HTTP protocol on the loop of the control plane.

It does not use uvicorn's server, because the proxy itself handles signals, the log and the end of
the process. A connection must send its request in time. The number of connections is limited: in
all, per caller, for all callers that the API does not allow, and by descriptor number, so that the
API leaves descriptors for clients.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from http import HTTPStatus

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import Guard, fault_body
from edgeproxy.control.admin.pages import JSON
from edgeproxy.core.admission.access import key_of
from edgeproxy.core.geo.address import normalise

MAX_CONNECTIONS = 4096
PART_OF_ONE = 2
"""The maximum number of connections is divided by this for one caller: half of them."""
DENIED = "denied"
"""The key that counts the connections of all callers that the API does not allow."""
MAX_DENIED = 64
MAX_HEAD_BYTES = 64 * 1024
BACKLOG = 4096
AT_ONCE = 8
"""Connections accepted between two checks of the limits."""
KEEP_ALIVE_SECS = 15
ENDING_SECS = 1.0


class _ConnectionLimits:
    """Counts connections: up to `most` in all, with descriptors below `ceiling`."""

    def __init__(self, guard: Guard, most: int, ceiling: int) -> None:
        self._guard = guard
        self._most = min(most, MAX_CONNECTIONS)
        self._ceiling = ceiling
        self._count_of: Counter[str] = Counter()

    def enter(self, connected: socket.socket, host: str) -> str | None:
        """Count a new connection; return the key that counts it, None if it is one too many."""
        caller = normalise(host)
        key = key_of(caller) if self._guard.allows(caller) else DENIED
        most = MAX_DENIED if key == DENIED else self._most // PART_OF_ONE
        is_full = self._count_of.total() >= self._most or self._count_of[key] >= most
        if is_full or connected.fileno() >= self._ceiling:
            return None
        self._count_of[key] += 1
        return key

    def leave(self, key: str) -> None:
        """A connection with this key has ended."""
        self._count_of[key] -= 1
        if not self._count_of[key]:
            del self._count_of[key]


class _Protocol(HttpToolsProtocol):
    """One connection. It ends if its request is late, or if the caller does not read the answer."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        limits: _ConnectionLimits,
        timeout_secs: float,
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._limits = limits
        self._timeout_secs = timeout_secs
        self._key: str | None = None
        self._due: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._reads_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._key = self._limits.enter(
            transport.get_extra_info("socket"), self.client[0] if self.client else ""
        )
        if self._key is None:
            transport.abort()
        else:
            self._arm(self._timeout_secs)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._reads_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "the headers are too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._reads_head:  # a further request on a kept connection
            self._reads_head = True
            self._head_bytes = 0
            self._arm(self._timeout_secs)

    def on_headers_complete(self) -> None:
        self._reads_head = False
        self._arm(self._timeout_secs * 2)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline and not self._reads_head:
            self._disarm()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._key is not None:
            self._limits.leave(self._key)
        super().connection_lost(exc)

    def _arm(self, secs: float) -> None:
        self._disarm()
        self._due = self.loop.call_later(secs, self._abort)

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _abort(self) -> None:
        self.transport.abort()

    def send_400_response(self, _msg: str) -> None:
        self._refuse(400, "this is not HTTP/1.1")

    def _refuse(self, status: int, reason: str) -> None:
        if self.transport.is_closing():
            return
        body = fault_body(FaultError(status, reason))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {JSON}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class Server:
    """The API on one listening socket. For one event loop.

    It takes up to `most` connections, with descriptors below `ceiling`.
    """

    def __init__(self, guard: Guard, timeout_secs: float, most: int, ceiling: int) -> None:
        logger = logging.getLogger("uvicorn")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        self._config = Config(
            guard,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            interface="asgi3",
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECS,
        )
        self._config.load()
        self._state = ServerState()
        self._limits = _ConnectionLimits(guard, most, ceiling)
        self._timeout_secs = timeout_secs
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket; `close` closes it too."""
        loop = asyncio.get_running_loop()

        def protocol() -> _Protocol:
            return _Protocol(self._config, self._state, loop, self._limits, self._timeout_secs)

        self._server = await loop.create_server(protocol, sock=listening, backlog=AT_ONCE)
        listening.listen(BACKLOG)  # asyncio would accept a whole backlog at once

    def stop_listening(self) -> None:
        """Accept no further connections; close the others after the requests under way."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def close(self) -> None:
        """Stop serving. Requests under way have ENDING_SECS to end."""
        self.stop_listening()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=ENDING_SECS)
        for connection in list(self._state.connections):
            connection.transport.abort()
