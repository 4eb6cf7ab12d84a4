"""A few pages over HTTP/1.1, for programs. Each connection gets one answer.

A page that takes long is rendered in a thread, so the loop never waits. A connection is closed
after `PATIENCE_SECS` if its client sends slowly or does not read the answer; after `ACTION_SECS`
where the pages include actions, which may take longer. When `MAX_AT_ONCE` connections are open, a
new one replaces the oldest that has sent no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.log import EventLog

if TYPE_CHECKING:
    import socket

    import h11

log = EventLog("page")

JSON = "application/json"
PATIENCE_SECS = 10.0
ACTION_SECS = 60.0
LINGER_SECS = 1.0
"""How long to read after a refusal: a reset could overtake the answer."""
REQUEST_BYTES = 16384
MAX_AT_ONCE = 64
PIECE_BYTES = 65536
"""Pages are written in pieces of this size, so that no connection holds a copy of a whole page."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of a page."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Request:
    """A request, without its path."""

    query: Mapping[str, str]


Page = Callable[[Request], Awaitable[Response]]


class HttpPages:
    """The pages of one listener, by path: pages to read (GET) and actions (POST).

    For one event loop.
    """

    def __init__(
        self, pages: Mapping[str, Page], actions: Mapping[str, Page] | None = None
    ) -> None:
        self._pages = {
            **{path: (("GET", "HEAD"), page) for path, page in pages.items()},
            **{path: (("POST",), page) for path, page in (actions or {}).items()},
        }
        self._acts = bool(actions)
        self._server: asyncio.Server | None = None
        self._served: set[asyncio.Task[object]] = set()
        self._silent: dict[asyncio.Task[object], None] = {}  # no request yet, oldest first

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket from now on; `close` closes it too."""
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=REQUEST_BYTES)

    def stop_listening(self) -> None:
        """Accept no more connections; requests under way are answered."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stop serving."""
        self.stop_listening()
        for task in self._served:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._served) >= MAX_AT_ONCE and not self._make_room():
            writer.transport.abort()
            return
        self._served.add(task)
        self._silent[task] = None
        try:
            async with asyncio.timeout(ACTION_SECS if self._acts else PATIENCE_SECS):
                await self._answer(task, reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        except Exception:  # noqa: BLE001
            log.bug("page_failed")
        finally:
            self._served.discard(task)
            self._silent.pop(task, None)
            writer.transport.abort()

    def _make_room(self) -> bool:
        """Close the oldest connection without a request; return whether there was one."""
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        self._served.discard(oldest)
        oldest.cancel()
        return True

    async def _answer(
        self,
        task: asyncio.Task[object],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        import h11

        dialog = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES)
        try:
            request = await _request(dialog, reader)
        except h11.RemoteProtocolError as error:
            refusal = Response(f"{error}\n".encode(), status=error.error_status_hint)
            await _send(dialog, writer, refusal)
            await _linger(reader, writer)
            return
        if request is None:
            return
        self._silent.pop(task, None)
        method = request.method.decode("ascii", "replace")
        response = await self._response(method, request.target.decode("ascii", "replace"))
        await _send(dialog, writer, response, with_body=method != "HEAD")

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
    dialog: h11.Connection, writer: asyncio.StreamWriter, response: Response, with_body: bool = True
) -> None:
    """Send an answer, no faster than its client reads."""
    import h11

    headers = [
        ("Content-Type", response.kind),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
    ]
    head = dialog.send(h11.Response(status_code=response.status, headers=headers))
    assert head is not None
    writer.write(head)
    body = memoryview(response.body if with_body else b"")
    for start in range(0, len(body), PIECE_BYTES):
        writer.write(body[start : start + PIECE_BYTES])
        await writer.drain()
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Discard what arrives for `LINGER_SECS`, so that the answer is not lost to a reset."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECS):
            while await reader.read(REQUEST_BYTES):
                pass
