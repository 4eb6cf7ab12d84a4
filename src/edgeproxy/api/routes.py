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
from edgeproxy.api.directory import Directory
from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import JSON, Guard, Receive, Scope, Send
from edgeproxy.api.operations import OPERATIONS, V1, answer
from edgeproxy.api.settings import ApiSettings
from edgeproxy.values import Secret

HEARTBEAT = f"{V1}/heartbeat/"


def api(directory: Directory, settings: ApiSettings, token: Secret) -> Guard:
    """Return the API over this directory, behind its guard."""

    async def document(_request: Request) -> Response:
        return Response(openapi.document(), media_type=JSON)

    async def welcome(_request: Request) -> Response:
        text = await asyncio.to_thread(home.page, directory)
        return HTMLResponse(text, headers=home.HEADERS)

    # Ids may hold slashes, so the longest paths come first.
    paths = sorted({each.path for each in OPERATIONS}, key=lambda path: -path.count("/"))
    routes = [_route(path, directory) for path in paths]
    routes += [Route("/openapi.json", document), Route("/", welcome)]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_fault, FaultError: _fault, Exception: _bug},
    )
    app.router.redirect_slashes = False

    async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if scope["method"] == "POST" and path.startswith(HEARTBEAT):  # nearly all that comes
            beat = directory.beat(path.removeprefix(HEARTBEAT), scope["caller"])
            await answer(beat)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return Guard(entrance, settings, token)


def _route(path: str, directory: Directory) -> Route:
    handlers = {each.method: each.handler for each in OPERATIONS if each.path == path}

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](directory, request)

    return Route(path.replace("{id}", "{id:path}"), endpoint, methods=list(handlers))


async def _http_fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "there is no such path", 405: "this path does not know that method"}
    reason = reasons.get(error.status_code, str(error.detail))
    return answer(
        FaultView(f"{reason}; see /openapi.json"), error.status_code, **dict(error.headers or {})
    )


async def _fault(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FaultError)
    return answer(FaultView(str(error), error.field), error.status, **error.headers)


async def _bug(_request: Request, _error: Exception) -> Response:
    return answer(FaultView("a bug was met; the log says more"), 500)
