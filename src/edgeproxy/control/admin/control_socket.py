"""The control socket: what an operator can read from a running proxy and ask it to do.

HTTP over a Unix socket that only its owner may use. All answers are JSON; any HTTP client can send
requests, for instance `curl --unix-socket`.

    GET  /status            everything that the metrics say, and more
    GET  /sessions          the open sessions
    GET  /explain?client=…  which backend a client would get now, by real load and bindings
    POST /drain?backend=…   give a backend no new clients
    POST /undrain?backend=… give it clients again
    POST /upgrade           start a successor, which takes over

`drain` and `undrain` run on the gate thread, between two decisions, as does the decision that
`explain` shows. Everything else is read off the gate thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

# What `Status` imports late: not first on the gate thread, nor when the package may be another one.
import edgeproxy.control.observe.json_pieces
import edgeproxy.control.observe.status_snapshot
import edgeproxy.core.admission.explanation
import edgeproxy.core.routing.backend_snapshot  # noqa: F401
from edgeproxy.control.admin.acceptor import CallerLimits
from edgeproxy.control.admin.pages import JSON, HttpPages, Page, Request, Response
from edgeproxy.control.observe.renderer import BusyError
from edgeproxy.control.observe.status import Status
from edgeproxy.errors import EdgeProxyError

ANSWER_SECS = 5.0


def control_pages(
    status: Status, upgrade: Callable[[], Awaitable[int]], limits: CallerLimits
) -> HttpPages:
    """Return the pages of the control socket.

    `upgrade` starts a successor and returns its process id.
    """

    async def show_status(_request: Request) -> Response:
        return await _rendered(status.state())

    async def sessions(_request: Request) -> Response:
        return await _rendered(status.sessions())

    async def explain(request: Request) -> Response:
        client = request.query.get("client", "")
        if not client:
            return _fault(400, "missing query parameter: ?client=ADDRESS")
        try:
            return await _rendered(status.explanation(client, request.query.get("app")))
        except ValueError:
            return _fault(400, f"{client!r} is not an IPv4 or IPv6 address")

    def drain(draining: bool) -> Page:
        async def act(request: Request) -> Response:
            backend_id = request.query.get("backend", "")
            async with asyncio.timeout(ANSWER_SECS):
                is_known = await status.on_gate(lambda: status.drain(backend_id, draining))
            if not is_known:
                return _fault(404, f"there is no backend {backend_id!r}")
            return _json({"backend": backend_id, "draining": draining})

        return act

    async def start_successor(_request: Request) -> Response:
        try:
            return _json({"pid": await upgrade()})
        except EdgeProxyError as error:
            return _fault(500, str(error))

    return HttpPages(
        {"/status": show_status, "/sessions": sessions, "/explain": explain},
        {"/drain": drain(True), "/undrain": drain(False), "/upgrade": start_successor},
        limits,
    )


async def _rendered(answer: Awaitable[Sequence[bytes]]) -> Response:
    try:
        return Response([*await answer, b"\n"], JSON)
    except BusyError as error:
        return _fault(503, str(error))


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content).encode() + b"\n", JSON, status)


def _fault(status: int, text: str) -> Response:
    return _json({"error": text}, status)
