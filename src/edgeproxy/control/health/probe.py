"""Probes one backend once, by TCP, HTTP, gRPC or a command of the operator.

    tcp    the backend accepts a connection
    http   it answers a GET of `path` with the expected status
    grpc   `grpc.health.v1.Health/Check` says SERVING
    exec   the command ends with exit code 0

A probe never raises and never takes longer than its timeout. It returns "" for a healthy backend,
or a short text that says what is wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import ProbeSettings

ANSWER_BYTES = 65536
"""Maximum number of bytes that a probe reads."""


async def probe(backend: Backend, settings: ProbeSettings) -> str:
    """Return what is wrong with a backend, or "" if it is healthy."""
    ask = _PROBES[settings.kind]
    try:
        async with asyncio.timeout(settings.timeout_secs):
            return await ask(backend, settings)
    except TimeoutError:
        return f"no answer within {settings.timeout_secs:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)


async def _tcp(backend: Backend, _settings: ProbeSettings) -> str:
    _, writer = await asyncio.open_connection(backend.wg_ip, backend.port)
    writer.close()
    return ""


async def _http(backend: Backend, settings: ProbeSettings) -> str:
    import h11

    reader, writer = await asyncio.open_connection(backend.wg_ip, backend.port)
    try:
        dialog = h11.Connection(h11.CLIENT, max_incomplete_event_size=ANSWER_BYTES)
        headers = [("Host", settings.host or backend.address), ("User-Agent", "edgeproxy-probe")]
        request = h11.Request(
            method="GET", target=settings.path, headers=[*headers, ("Connection", "close")]
        )
        writer.write((dialog.send(request) or b"") + (dialog.send(h11.EndOfMessage()) or b""))
        while True:
            event = dialog.next_event()
            if isinstance(event, h11.Response):
                expected = settings.status
                return "" if event.status_code == expected else f"HTTP status {event.status_code}"
            if event is h11.NEED_DATA:
                data = await reader.read(ANSWER_BYTES)
                if not data:
                    return "closed the connection without an answer"
                dialog.receive_data(data)
    except h11.RemoteProtocolError as error:
        return f"no HTTP: {error}"
    finally:
        writer.transport.abort()


async def _grpc(backend: Backend, settings: ProbeSettings) -> str:
    from edgeproxy.control.health.grpc import check

    return await check(backend, settings.service)


async def _exec(backend: Backend, settings: ProbeSettings) -> str:
    from edgeproxy.control.health import command

    return await command.check(backend, settings.command)


_PROBES: dict[str, Callable[[Backend, ProbeSettings], Awaitable[str]]] = {
    "tcp": _tcp,
    "http": _http,
    "grpc": _grpc,
    "exec": _exec,
}
