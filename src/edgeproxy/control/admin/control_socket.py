"""What can be asked of a running proxy over its control socket, and what it can be told to do.

HTTP over a Unix socket that only its owner may use. All answers are JSON; `curl --unix-socket`
is a client of it like any other.

    GET  /status            everything that the metrics say, and more
    GET  /sessions          the open sessions
    GET  /explain?client=…  which backend a client would get now, by real load and bindings
    POST /drain?backend=…   give a backend no new clients
    POST /undrain?backend=… give it clients again
    POST /upgrade           start a successor, which takes over

What concerns decisions runs on the gate thread, between two of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from edgeproxy.control.admin.pages import JSON, HttpPages, Request, Response
from edgeproxy.control.observe.reading import StatusSnapshot
from edgeproxy.core.admission.explanation import Decision
from edgeproxy.errors import EdgeProxyError

T = TypeVar("T")

ANSWER_SECS = 5.0


class Proxy(Protocol):
    """What the control socket asks of the running proxy."""

    def read(self) -> StatusSnapshot:
        """Return what is known now. May take a while; runs in a thread."""

    def sessions(self) -> list[dict[str, Any]]:
        """Return the open sessions. May take a while; runs in a thread."""

    def on_gate(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function on the gate thread."""

    def explain(self, client: str, scope: str | None) -> Decision:
        """Return the decision for a client. Gate thread only."""

    def drain(self, backend_id: str, draining: bool) -> bool:
        """Drain a backend or not; return whether it is known. Gate thread only."""


def control_pages(proxy: Proxy, upgrade: Callable[[], Awaitable[int]]) -> HttpPages:
    """Return the pages of the control socket."""

    async def status(_asked: Request) -> Response:
        reading = await asyncio.to_thread(proxy.read)
        return _json(reading.as_json())

    async def sessions(_asked: Request) -> Response:
        return _json(await asyncio.to_thread(proxy.sessions))

    async def explain(asked: Request) -> Response:
        client = asked.query.get("client", "")
        if not client:
            return _fault(400, "say ?client=ADDRESS")
        decided = proxy.on_gate(lambda: proxy.explain(client, asked.query.get("app")))
        try:
            return _json(asdict(await asyncio.wait_for(decided, ANSWER_SECS)))
        except ValueError:
            return _fault(400, f"{client!r} is not an IPv4 or IPv6 address")

    def draining(wanted: bool) -> Callable[[Request], Any]:
        async def act(asked: Request) -> Response:
            backend_id = asked.query.get("backend", "")
            done = proxy.on_gate(lambda: proxy.drain(backend_id, wanted))
            if not await asyncio.wait_for(done, ANSWER_SECS):
                return _fault(404, f"there is no backend {backend_id!r}")
            return _json({"backend": backend_id, "draining": wanted})

        return act

    async def succeed(_asked: Request) -> Response:
        try:
            return _json({"pid": await upgrade()})
        except EdgeProxyError as error:
            return _fault(500, str(error))

    return HttpPages(
        {"/status": status, "/sessions": sessions, "/explain": explain},
        {"/drain": draining(True), "/undrain": draining(False), "/upgrade": succeed},
    )


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content).encode() + b"\n", JSON, status)


def _fault(status: int, text: str) -> Response:
    return _json({"error": text}, status)
