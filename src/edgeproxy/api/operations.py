"""The operations of the API: method, path, types of request and answer, and what each does.

Routes and the OpenAPI document both come from this one table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgeproxy.api import bodies
from edgeproxy.api.decoding import body_of
from edgeproxy.api.fault import FaultError
from edgeproxy.control.admin.pages import JSON
from edgeproxy.core.admission.explanation import Decision
from edgeproxy.core.backends.rows import shown
from edgeproxy.registry import views
from edgeproxy.registry.registry import Registry

Handler = Callable[[Registry, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        path: Its path, with `{id}` for the id of a backend.
        takes: The type of its body, if it takes one.
        gives: The type of its answer.
        statuses: The statuses of its answers that are not faults.
        faults: The statuses of its faults, besides those that every operation may have.
        query: Its query parameters: name, whether it is required, description, schema.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    gives: Any
    takes: Any = None
    statuses: tuple[int, ...] = (200,)
    faults: tuple[int, ...] = ()
    query: tuple[tuple[str, bool, str, Mapping[str, Any]], ...] = ()


class _Rendered(Response):
    """An answer in pieces of JSON, which are sent no faster than the caller reads."""

    media_type = JSON

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(headers={"content-length": str(sum(map(len, pieces)))})
        self._pieces = pieces

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def answer(content: object, status: int = 200, **headers: str) -> Response:
    """Return an answer in JSON."""
    return Response(msgspec.json.encode(content), status, headers, JSON)


async def health(registry: Registry, _request: Request) -> Response:
    """Answer that this process lives."""
    content: dict[str, object] = msgspec.to_builtins(registry.health())
    if content["cluster"] is None:
        del content["cluster"]
    return answer(content)


async def cluster(registry: Registry, _request: Request) -> Response:
    """Answer what the agent of the cluster said last."""
    return answer(registry.cluster())


async def ready(registry: Registry, _request: Request) -> Response:
    """Answer whether clients would be served."""
    readiness = registry.readiness()
    return answer(readiness, 200 if readiness.ready else 503)


async def register(registry: Registry, request: Request) -> Response:
    """Register a backend."""
    registration = body_of(await request.body(), bodies.Registration)
    view, is_new = await registry.register(bodies.row_of(registration), _caller(request))
    ttl_secs = view.lease.ttl_secs if view.lease else 0.0
    registered = bodies.RegisteredView(
        **{field.name: getattr(view, field.name) for field in fields(view)},
        status="registered" if is_new else "updated",
        ttl_secs=ttl_secs,
        heartbeat_secs=ttl_secs / 3,
    )
    return answer(registered, 201 if is_new else 200)


async def heartbeat(registry: Registry, request: Request) -> Response:
    """Renew a lease."""
    return beat(registry, _id(request), _caller(request))


def beat(registry: Registry, backend_id: str, caller: str) -> Response:
    """Renew a lease, and answer for how long."""
    registry.beat(backend_id, caller)
    return answer(bodies.HeartbeatAccepted(backend_id, "ok", registry.ttl_secs))


async def deregister(registry: Registry, request: Request) -> Response:
    """Take a registered backend out."""
    backend_id = _id(request)
    await registry.deregister(backend_id, _caller(request))
    return answer(bodies.Deregistered(backend_id, "deregistered"))


async def backends(registry: Registry, _request: Request) -> Response:
    """Answer with all backends."""
    return _Rendered(await registry.views())


async def backend(registry: Registry, request: Request) -> Response:
    """Answer with one backend."""
    return answer(registry.view(_id(request)))


def _change(action: str) -> Handler:
    async def change(registry: Registry, request: Request) -> Response:
        return answer(await registry.change(_id(request), _caller(request), action))

    return change


async def weight(registry: Registry, request: Request) -> Response:
    """Set a weight."""
    body = body_of(await request.body(), bodies.NewWeight)
    values = msgspec.structs.asdict(body)
    return answer(await registry.change(_id(request), _caller(request), "weight", **values))


async def limits(registry: Registry, request: Request) -> Response:
    """Set both limits."""
    body = body_of(await request.body(), bodies.NewLimits)
    values = msgspec.structs.asdict(body)
    return answer(await registry.change(_id(request), _caller(request), "limits", **values))


def _drain(draining: bool) -> Handler:
    async def drain(registry: Registry, request: Request) -> Response:
        return answer(await registry.drain(_id(request), _caller(request), draining))

    return drain


async def explain(registry: Registry, request: Request) -> Response:
    """Answer which backend a client would get."""
    for name in request.query_params:
        if name not in ("client", "app"):
            raise FaultError(400, f"there is no parameter {shown(name)}: client and app are", None)
    client = _query(request, "client")
    if not client:
        raise FaultError(400, "missing query parameter: ?client=ADDRESS", "client")
    return _Rendered(await registry.explain(client, _query(request, "app")))


async def sessions(registry: Registry, _request: Request) -> Response:
    """Answer with the open connections."""
    return _Rendered([b'{"sessions":', *await registry.sessions(), b"}"])


async def table(registry: Registry, _request: Request) -> Response:
    """Answer with the state of the routing table."""
    return _Rendered(await registry.table_state())


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _query(request: Request, name: str) -> str | None:
    """Return a query parameter, None without it."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise FaultError(400, f"the query parameter {name} is there {len(values)} times", name)
    return values[0] if values else None


def _caller(request: Request) -> str:
    return str(request.scope["caller"])


V1 = "/api/v1"
ONE = f"{V1}/backends/{{id}}"
View = views.BackendView

OPERATIONS = (
    Operation(
        "GET",
        f"{V1}/cluster",
        "cluster",
        "The POPs that share this routing table, as the agent of this one sees them.",
        cluster,
        dict[str, Any],
        faults=(404,),
    ),
    Operation("GET", "/health", "health", "Whether this process is alive.", health, views.Health),
    Operation(
        "GET",
        "/ready",
        "ready",
        "Whether clients would be served.",
        ready,
        views.Readiness,
        statuses=(200, 503),
    ),
    Operation(
        "POST",
        f"{V1}/register",
        "register",
        "Register a backend, or register it anew; it gets clients at once.",
        register,
        bodies.RegisteredView,
        takes=bodies.Registration,
        statuses=(200, 201),
        faults=(409,),
    ),
    Operation(
        "POST",
        f"{V1}/heartbeat/{{id}}",
        "heartbeat",
        "Send a heartbeat for a registered backend; after a 404, register it again.",
        heartbeat,
        bodies.HeartbeatAccepted,
        faults=(404,),
    ),
    Operation(
        "GET",
        f"{V1}/backends",
        "backends",
        "All backends.",
        backends,
        bodies.BackendList,
    ),
    Operation("GET", ONE, "backend", "One backend.", backend, View, faults=(404,)),
    Operation(
        "DELETE",
        ONE,
        "deregister",
        "Deregister a backend.",
        deregister,
        bodies.Deregistered,
        faults=(404, 409),
    ),
    *(
        Operation("POST", f"{ONE}/{name}", name, summary, handler, View, faults=faults)
        for name, summary, handler, faults in (
            (
                "enable",
                "Let a backend take clients, as `edgeproxy node enable`.",
                _change("enable"),
                (404, 409),
            ),
            (
                "disable",
                "Keep clients from a backend, for all POPs.",
                _change("disable"),
                (404, 409),
            ),
            ("drain", "Send a backend no new clients at this POP.", _drain(True), (404,)),
            ("undrain", "Give a drained backend clients again.", _drain(False), (404,)),
        )
    ),
    Operation(
        "PUT",
        f"{ONE}/weight",
        "weight",
        "Set a backend's share of new clients.",
        weight,
        View,
        takes=bodies.NewWeight,
        faults=(404, 409),
    ),
    Operation(
        "PUT",
        f"{ONE}/limits",
        "limits",
        "Set a backend's connection limits.",
        limits,
        View,
        takes=bodies.NewLimits,
        faults=(404, 409),
    ),
    Operation(
        "GET",
        f"{V1}/explain",
        "explain",
        "Which backend a client would get now, and why.",
        explain,
        Decision,
        query=(
            ("client", True, "the address of a client", bodies.ADDRESS),
            ("app", False, "the app to decide for; unset: that of this proxy, or all", {}),
        ),
    ),
    Operation(
        "GET", f"{V1}/sessions", "sessions", "The open connections.", sessions, bodies.SessionList
    ),
    Operation("GET", f"{V1}/table", "table", "The routing table.", table, views.TableView),
)
