"""Serves the API with uvicorn's HTTP protocol on the loop of the control plane.

Not uvicorn's server: signals, log and the end of the process are the proxy's. Whoever connects has
so long to ask, and where too many are there, further ones are closed: in all, of one caller, of all
who may not call, and of those who would leave no descriptors for anything else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import JSON, Guard, fault_body
from edgeproxy.core.admission.access import key_of
from edgeproxy.core.geo.address import normalise

MOST_CONNECTIONS = 4096
PART_OF_ONE = 2
"""One caller may have a half of them."""
STRANGERS = "strangers"
MOST_OF_STRANGERS = 64
MOST_HEAD_BYTES = 64 * 1024
BACKLOG = 4096
AT_ONCE = 8
"""How many are accepted before it is seen whether there are too many."""
KEEP_ALIVE_SECS = 15
ENDING_SECS = 1.0


class _Crowd:
    """Who is connected: `most` in all, with descriptors below `ceiling`."""

    def __init__(self, guard: Guard, most: int, ceiling: int) -> None:
        self._guard = guard
        self._most = min(most, MOST_CONNECTIONS)
        self._ceiling = ceiling
        self._count_of: Counter[str] = Counter()

    def enter(self, connected: socket.socket, host: str) -> str | None:
        """Let one more in; return as whom it is counted, None if there are too many."""
        caller = normalise(host)
        who = key_of(caller) if self._guard.allows(caller) else STRANGERS
        most = MOST_OF_STRANGERS if who == STRANGERS else self._most // PART_OF_ONE
        is_crowded = self._count_of.total() >= self._most or self._count_of[who] >= most
        if is_crowded or connected.fileno() >= self._ceiling:
            return None
        self._count_of[who] += 1
        return who

    def leave(self, who: str) -> None:
        """One of these has gone."""
        self._count_of[who] -= 1
        if not self._count_of[who]:
            del self._count_of[who]


class _Protocol(HttpToolsProtocol):
    """One connection; it is closed if it does not ask in time, or does not read its answer."""

    crowd: _Crowd
    patience_secs = 10.0
    _who: str | None = None
    _due: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_asking = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._who = self.crowd.enter(
            transport.get_extra_info("socket"), self.client[0] if self.client else ""
        )
        if self._who is None:
            transport.abort()
        else:
            self._arm(self.patience_secs)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_asking:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._turn_away(431, "the headers are too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._is_asking:  # on a connection that was kept
            self._is_asking = True
            self._head_bytes = 0
            self._arm(self.patience_secs)

    def on_headers_complete(self) -> None:
        self._is_asking = False
        self._arm(self.patience_secs * 2)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline and not self._is_asking:
            self._disarm()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._who is not None:
            self.crowd.leave(self._who)
        super().connection_lost(exc)

    def _arm(self, secs: float) -> None:
        self._disarm()
        self._due = self.loop.call_later(secs, self._leave)

    def _disarm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _leave(self) -> None:
        self.transport.abort()

    def send_400_response(self, _msg: str) -> None:
        self._turn_away(400, "this is not HTTP/1.1")

    def _turn_away(self, status: int, reason: str) -> None:
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

    It has up to `most` connections, with descriptors below `ceiling`.
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
        self._crowd = _Crowd(guard, most, ceiling)
        self._timeout_secs = timeout_secs
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket from now on; it is closed with the rest."""
        loop = asyncio.get_running_loop()

        def protocol() -> Any:
            made = _Protocol(self._config, self._state, {}, loop)
            made.crowd = self._crowd
            made.patience_secs = self._timeout_secs
            return made

        self._server = await loop.create_server(protocol, sock=listening, backlog=AT_ONCE)
        listening.listen(BACKLOG)  # which asyncio would accept all at once

    def stop_listening(self) -> None:
        """Let nobody else in; who is being answered will be, and has to connect anew after it."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def close(self) -> None:
        """Stop serving; what is being answered has a moment to end."""
        self.stop_listening()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=ENDING_SECS)
        for connection in list(self._state.connections):
            connection.transport.abort()
