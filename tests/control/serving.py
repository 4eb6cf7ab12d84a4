"""Pages that are really served, and somebody who asks for them byte by byte."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgeproxy.api.http1.server import Server
from edgeproxy.control.admin.pages import HttpPages


@contextmanager
def served(
    pages: HttpPages | Server, send_buffer_bytes: int | None = None
) -> Iterator[tuple[str, int]]:
    """Serve pages on a loop of their own; give the address.

    `send_buffer_bytes` is how much of an answer the system takes ahead of its reader.
    """
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    if send_buffer_bytes is not None:  # its connections inherit it
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    address: tuple[str, int] = listening.getsockname()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(pages.serve(listening), loop).result()
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(_end(pages), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(pages: HttpPages | Server) -> None:
    await pages.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def raw(address: tuple[str, int], request: bytes) -> bytes:
    """Return all that comes back for these bytes."""
    with socket.create_connection(address, 10) as asking:
        asking.sendall(request)
        return rest_of(asking)


def rest_of(asking: socket.socket) -> bytes:
    """Return all that comes until the end."""
    got = b""
    while piece := asking.recv(1 << 16):
        got += piece
    return got


def get(address: tuple[str, int], path: str) -> bytes:
    """Return the body of a page."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
    return raw(address, request.encode()).partition(b"\r\n\r\n")[2]
