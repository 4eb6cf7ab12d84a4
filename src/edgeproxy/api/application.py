"""The API as an ASGI application: operations by path, the document, the page, faults as JSON."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from edgeproxy.api import home, openapi
from edgeproxy.api.bodies import FaultView
from edgeproxy.api.fault import FaultError, mapping_faults
from edgeproxy.api.guard import Guard, Receive, Scope, Send
from edgeproxy.api.operations import OPERATIONS, V1, answer, beat
from edgeproxy.api.settings import ApiSettings
from edgeproxy.control.admin.pages import JSON
from edgeproxy.registry.own_callers import OwnCallers
from edgeproxy.registry.registry import Registry
from edgeproxy.values import Secret

HEARTBEAT = f"{V1}/heartbeat/"


def api(registry: Registry, settings: ApiSettings, token: Secret, own_callers: OwnCallers) -> Guard:
    """Return the API of this registry, behind its guard."""

    async def document(_request: Request) -> Response:
        return Response(openapi.document(), media_type=JSON)

    async def index(_request: Request) -> Response:
        text = await asyncio.to_thread(home.page, registry)
        return HTMLResponse(text, headers=home.HEADERS)

    # Ids may hold slashes, so the longest paths come first.
    paths = sorted({operation.path for operation in OPERATIONS}, key=lambda path: -path.count("/"))
    routes = [_route(path, registry) for path in paths]
    routes += [Route("/openapi.json", document), Route("/", index)]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_fault, FaultError: _fault, Exception: _bug},
    )
    app.router.redirect_slashes = False

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] == "POST" and path.startswith(HEARTBEAT):  # most requests
            with mapping_faults():
                response = beat(registry, path.removeprefix(HEARTBEAT), scope["caller"])
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return Guard(dispatch, settings, token, registry.missed_heartbeats.missed, own_callers)


def _route(path: str, registry: Registry) -> Route:
    handlers = {
        operation.method: operation.handler for operation in OPERATIONS if operation.path == path
    }

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        with mapping_faults():
            return await handlers[method](registry, request)

    return Route(path.replace("{id}", "{id:path}"), endpoint, methods=list(handlers))


async def _http_fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {}).get("Allow", "")
    reasons = {404: "there is no such path", 405: f"this path allows {allowed}"}
    reason = reasons.get(error.status_code, str(error.detail))
    return answer(
        FaultView(f"{reason}; see /openapi.json"), error.status_code, **dict(error.headers or {})
    )


async def _fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FaultError)
    return answer(FaultView(str(error), error.field), error.status, **error.headers)


async def _bug(_request: Request, _error: Exception) -> Response:
    return answer(FaultView("internal error; the log has the details"), 500)
