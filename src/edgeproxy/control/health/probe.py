"""Probes one backend once, by TCP, HTTP, gRPC or a command of the operator.

    tcp    the backend accepts a connection
    http   it answers a GET of `path` with the expected status
    grpc   `grpc.health.v1.Health/Check` says SERVING
    exec   the command ends with exit code 0

All but exec begin as a connection of a client does (`connection`). A probe never takes longer than
its timeout. It returns "" for a healthy backend, or a short text that says what is wrong. Where
this host lacks what a probe needs, such as descriptors, that says nothing about the backend.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from edgeproxy.control.health import command, grpc, http
from edgeproxy.control.health.connection import ProbeError, Turns, connected
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import PLAIN, Opening, ProbeSettings
from edgeproxy.engine.contract import DialFailure
from edgeproxy.engine.dial import failure

MAX_FAULT_CHARS = 200


class NotProbedError(Exception):
    """This host has no descriptors, memory or processes left for a probe."""


async def probe(
    backend: Backend, settings: ProbeSettings, opening: Opening = PLAIN, turns: Turns | None = None
) -> str:
    """Return what is wrong with a backend, or "" if it is healthy.

    All probes of one loop share their `turns`. Raises NotProbedError.
    """
    ask = _PROBES[settings.kind]
    try:
        async with asyncio.timeout(settings.timeout_secs):
            fault = await ask(backend, settings, opening, turns or Turns())
    except ProbeError as error:
        fault = str(error)
    except TimeoutError:
        fault = f"no answer within {settings.timeout_secs:g} s"
    except OSError as error:
        fault = os.strerror(error.errno).lower() if error.errno else str(error)
        if failure(error.errno or 0) is DialFailure.LOCAL:
            raise NotProbedError(fault) from None
    return _shown(fault)


def _shown(fault: str) -> str:
    """Return a text, in which a backend may have said anything, as one short line."""
    text = fault[:MAX_FAULT_CHARS]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


async def _tcp(backend: Backend, _settings: ProbeSettings, opening: Opening, turns: Turns) -> str:
    async with connected(backend, opening, opening.alpn, turns):
        return ""


async def _http(backend: Backend, settings: ProbeSettings, opening: Opening, turns: Turns) -> str:
    async with connected(backend, opening, http.ALPN, turns) as connection:
        return await http.check(connection, settings, opening.tls_name or backend.address)


async def _grpc(backend: Backend, settings: ProbeSettings, opening: Opening, turns: Turns) -> str:
    authority = opening.tls_name or backend.address
    scheme = "https" if opening.tls_name else "http"
    async with connected(backend, opening, grpc.ALPN, turns) as connection:
        return await grpc.check(connection, scheme, authority, settings.service)


async def _exec(backend: Backend, settings: ProbeSettings, _opening: Opening, _turns: Turns) -> str:
    return await command.check(backend, settings.command)


_PROBES: dict[str, Callable[[Backend, ProbeSettings, Opening, Turns], Awaitable[str]]] = {
    "tcp": _tcp,
    "http": _http,
    "grpc": _grpc,
    "exec": _exec,
}
