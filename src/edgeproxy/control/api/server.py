"""Serves the API with uvicorn's HTTP protocol on the loop of the control plane.

Not uvicorn's server: signals, log and the end of the process are the proxy's. Whoever connects has
so long to ask, and where too many are there, further ones are closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgeproxy.control.api.fault import FaultError
from edgeproxy.control.api.guard import JSON, App, fault_body

MOST_CONNECTIONS = 4096
MOST_HEAD_BYTES = 64 * 1024
BACKLOG = 4096
KEEP_ALIVE_SECS = 15
ENDING_SECS = 1.0


class _Protocol(HttpToolsProtocol):
    """One connection; it is closed if it does not ask in time, or does not read its answer."""

    patience_secs = 10.0
    _due: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_asking = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
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
    """The API on one listening socket. For one event loop."""

    def __init__(self, app: App, timeout_secs: float) -> None:
        logger = logging.getLogger("uvicorn")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        self._config = Config(
            app,
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
        self._timeout_secs = timeout_secs
        self._server: asyncio.Server | None = None

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket from now on; it is closed with the rest."""
        loop = asyncio.get_running_loop()

        def protocol() -> Any:
            made = _Protocol(self._config, self._state, {}, loop)
            made.patience_secs = self._timeout_secs
            return made

        self._server = await loop.create_server(protocol, sock=listening, backlog=BACKLOG)

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
