"""The OpenAPI document, generated from the table of operations."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec

from edgeproxy.api.bodies import NAME, FaultView
from edgeproxy.api.guard import OPEN_PATHS
from edgeproxy.api.operations import OPERATIONS, Operation
from edgeproxy.control.admin.pages import JSON
from edgeproxy.version import VERSION

FAULTS = {
    400: "the request cannot be understood; `field` names what is wrong",
    401: "a bearer token is needed",
    403: "this caller may not do that",
    404: "there is no such backend",
    405: "the path does not allow this method",
    408: "the request took too long",
    409: "the stored row does not allow this request",
    413: "the body is too long",
    415: "the body is not JSON",
    429: "too many requests; see Retry-After",
    431: "the head of the request is too long, or has too many fields",
    500: "internal error",
    503: "not available now; try again later",
}
DESCRIPTION = """Backends register here and get clients. See docs/api.md.

A body is one JSON object of up to 64 KiB with `Content-Type: application/json`, in which no field
is there twice. A head has up to 64 KiB and 128 fields. A request arrives within 10 s. One caller
may ask 1000 times a second. Where the proxy has a token, all but `/health` and `/ready` demand it;
where it has none, a request with `Origin` may not write, and a `Host` that is a public name may
read only these two.
"""
EVERYWHERE = (400, 401, 403, 405, 408, 413, 415, 429, 431, 500, 503)


@cache
def document() -> bytes:
    """Return the document."""
    types = [operation.gives for operation in OPERATIONS]
    types += [operation.takes for operation in OPERATIONS if operation.takes is not None]
    types = list(dict.fromkeys([*types, FaultView]))
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schema_of
        )
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "edgeProxy",
                "version": VERSION,
                "description": DESCRIPTION,
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"token": []}],
        }
    ).encode()


def _operation(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": is_needed,
            "description": text,
            "schema": {"type": "string", **schema},
        }
        for name, is_needed, text, schema in operation.query
    ]
    if "{id}" in operation.path:
        parameters.append(
            {
                "name": "id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", **NAME},
            }
        )
    responses = {
        str(status): _content("done", schema_of[operation.gives]) for status in operation.statuses
    }
    for status in sorted({*EVERYWHERE, *operation.faults}):
        responses.setdefault(str(status), _content(FAULTS[status], schema_of[FaultView]))
    if 503 in operation.statuses:
        either = {"anyOf": [schema_of[operation.gives], schema_of[FaultView]]}
        responses["503"] = _content("not ready, or not available now", either)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if operation.takes is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of[operation.takes]}},
        }
    if operation.path in OPEN_PATHS:
        described["security"] = []
    return described


def _content(text: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": schema}}}
