"""A few pages over HTTP/1.1, for programs. Each connection gets one answer.

A page that takes long is rendered in a thread, so the loop never waits. A connection is closed if
its request is not there within `PATIENCE_SECS`, and if it has not read its answer `ACTION_SECS`
later. Who may come, and how many, is decided by `control/admin/acceptor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.control.admin.acceptor import Acceptor, CallerConnection, CallerLimits
from edgeproxy.log import EventLog

if TYPE_CHECKING:
    import socket

    import h11

log = EventLog("page")

JSON = "application/json"
PATIENCE_SECS = 10.0
ACTION_SECS = 60.0
"""How long the answer may take: to be made, and then to be read."""
LINGER_SECS = 1.0
"""How long to read after a refusal: a reset could overtake the answer."""
REQUEST_BYTES = 16384
PIECE_BYTES = 65536
"""Pages are written in pieces of this size, so that no connection holds a copy of a whole page."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of a page; a long body comes in pieces."""

    body: bytes | Sequence[bytes]
    kind: str = "text/plain; charset=utf-8"
    status: int = 200

    @property
    def pieces(self) -> Sequence[bytes]:
        """The body, as it is sent."""
        return (self.body,) if isinstance(self.body, bytes) else self.body


@dataclass(frozen=True, slots=True)
class Request:
    """A request, without its path."""

    query: Mapping[str, str]


Page = Callable[[Request], Awaitable[Response]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class HttpPages:
    """The pages of one listener, by path: pages to read (GET) and actions (POST).

    For one event loop.
    """

    def __init__(
        self,
        pages: Mapping[str, Page],
        actions: Mapping[str, Page] | None = None,
        limits: CallerLimits | None = None,
    ) -> None:
        self._pages = {
            **{path: (("GET", "HEAD"), page) for path, page in pages.items()},
            **{path: (("POST",), page) for path, page in (actions or {}).items()},
        }
        self._limits = limits or CallerLimits()
        self._acceptor: Acceptor | None = None
        self._served: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket from now on; `close` closes it too."""
        self._acceptor = Acceptor(listening, self._limits, self._begin, self._begin_refusal)

    def stop_listening(self) -> None:
        """Accept no more connections; requests under way are answered."""
        if self._acceptor is not None:
            self._acceptor.close()

    async def close(self) -> None:
        """Stop serving."""
        self.stop_listening()
        for task in self._served:
            task.cancel()

    def _begin(self, connected: socket.socket, connection: CallerConnection) -> asyncio.Task[None]:
        return self._run(connected, lambda *streams: self._answer(connection, *streams))

    def _begin_refusal(self, connected: socket.socket, setting: str) -> asyncio.Task[None]:
        return self._run(connected, lambda *streams: _turn_away(setting, *streams))

    def _run(self, connected: socket.socket, talk: Talk) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._serve(connected, talk))
        self._served.add(task)
        task.add_done_callback(self._served.discard)
        # A task that is cancelled before it has begun would not close it.
        task.add_done_callback(lambda _task: connected.close())
        return task

    async def _serve(self, connected: socket.socket, talk: Talk) -> None:
        transport: asyncio.WriteTransport | None = None
        try:
            reader, writer = await _streams(connected)
            transport = writer.transport
            await talk(reader, writer)
            async with asyncio.timeout(PATIENCE_SECS):
                writer.close()
                await writer.wait_closed()
            transport = None
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        except Exception:  # noqa: BLE001
            log.bug("page_failed")
        finally:
            if transport is not None:
                transport.abort()

    async def _answer(
        self,
        connection: CallerConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        import h11

        dialog = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES)
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                request = await _request(dialog, reader)
        except h11.RemoteProtocolError as error:
            connection.silent_at = None
            refusal = Response(f"{error}\n".encode(), status=error.error_status_hint)
            async with asyncio.timeout(PATIENCE_SECS):
                await _send(dialog, writer, refusal, connection)
                await _linger(reader, writer)
            return
        if request is None:
            return
        connection.silent_at = None
        method = request.method.decode("ascii", "replace")
        async with asyncio.timeout(ACTION_SECS):
            response = await self._response(method, request.target.decode("ascii", "replace"))
        async with asyncio.timeout(ACTION_SECS):
            await _send(dialog, writer, response, connection, with_body=method != "HEAD")

    async def _response(self, method: str, target: str) -> Response:
        """Return the answer to a request."""
        from urllib.parse import parse_qsl, urlsplit

        try:
            parts = urlsplit(target)
        except ValueError as error:
            return Response(f"{error}\n".encode(), status=400)
        methods, page = self._pages.get(parts.path, ((), None))
        if page is None:
            return Response(
                f"not found; the paths are: {' '.join(sorted(self._pages))}\n".encode(), status=404
            )
        if method not in methods:
            return Response(f"allowed is {' or '.join(methods)}\n".encode(), status=405)
        return await page(Request(dict(parse_qsl(parts.query))))


async def _request(dialog: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the first request, or None if there is none. Raises h11.RemoteProtocolError."""
    import h11

    while True:
        event = dialog.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        data = await reader.read(REQUEST_BYTES)
        if not data:
            return None
        dialog.receive_data(data)


async def _send(
    dialog: h11.Connection,
    writer: asyncio.StreamWriter,
    response: Response,
    connection: CallerConnection,
    with_body: bool = True,
) -> None:
    """Send an answer, no faster than its client reads."""
    import h11

    pieces = response.pieces
    headers = [
        ("Content-Type", response.kind),
        ("Content-Length", str(sum(map(len, pieces)))),
        ("Connection", "close"),
    ]
    head = dialog.send(h11.Response(status_code=response.status, headers=headers))
    assert head is not None
    writer.write(head)
    for piece in pieces if with_body else ():
        body = memoryview(piece)
        for start in range(0, len(body), PIECE_BYTES):
            writer.write(body[start : start + PIECE_BYTES])
            await _drain(writer, connection)
    await _drain(writer, connection)


async def _drain(writer: asyncio.StreamWriter, connection: CallerConnection) -> None:
    """Wait until the client has read what is written, and note since when it has not."""
    connection.stalled_at = asyncio.get_running_loop().time()
    await writer.drain()
    connection.stalled_at = None


async def _turn_away(
    setting: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Tell a caller, whom nobody has read, that it is not allowed."""
    text = f"this address may not read here; see {setting}\n"
    writer.write(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(text), text.encode())
    )
    async with asyncio.timeout(PATIENCE_SECS):
        await _linger(reader, writer)


async def _streams(
    connected: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the streams of a connection that was accepted."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=REQUEST_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connected)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Discard what arrives for `LINGER_SECS`, so that the answer is not lost to a reset."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECS):
            while await reader.read(REQUEST_BYTES):
                pass
