"""The API of a running proxy, as a client sees it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.system.backends import Backend
from tests.system.pop import Pop
from tests.system.proxy import SERVE

TTL_SECS = 2.0


class Answer(NamedTuple):
    """A status, what was said, and the headers in lower case."""

    status: int
    said: Any
    headers: dict[str, str]


class Api:
    """Asks one API; from the address `source` if it is given."""

    def __init__(self, pop: Pop, source: str = "", **headers: str) -> None:
        host, _, port = pop.proxy.wait_for("api", _count(pop))["listen"].rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.url = f"http://{host}:{port}"
        self._source = source
        self.headers = headers

    def ask(self, method: str, path: str, body: object = None, /, **headers: str) -> Answer:
        """Return the answer to a request; its body is sent as it is if it is bytes."""
        source = (self._source, 0) if self._source else None
        connection = http.client.HTTPConnection(*self.address, timeout=20, source_address=source)
        sent = {name.replace("_", "-"): text for name, text in (self.headers | headers).items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is None:
            content = b""
        if content:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, content or None, sent)
            answer = connection.getresponse()
            text = answer.read()
            said = json.loads(text) if "json" in answer.headers["Content-Type"] else text.decode()
            found = {name.lower(): each for name, each in answer.headers.items()}
            return Answer(answer.status, said, found)
        finally:
            connection.close()

    def register(self, backend: Backend, **more: object) -> Answer:
        """Register a backend that runs."""
        return self.ask("POST", "/api/v1/register", registration(backend, **more))

    def register_at_once(self, bodies: Iterable[dict[str, object]]) -> list[int]:
        """Register all of these at the same moment; return the statuses."""

        async def one(registered: dict[str, object]) -> int:
            body = json.dumps(registered).encode()
            reader, writer = await asyncio.open_connection(*self.address)
            writer.write(
                b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = await reader.read()
            writer.close()
            return int(answer.split()[1])

        async def everybody() -> list[int]:
            return await asyncio.gather(*map(one, bodies))

        return asyncio.run(everybody())

    def beat(self, backend_id: str) -> int:
        """Send a heartbeat; return the status."""
        return self.ask("POST", f"/api/v1/heartbeat/{backend_id}").status

    def listed(self) -> dict[str, Any]:
        """Return all backends, by id."""
        said = self.ask("GET", "/api/v1/backends").said
        assert said["total"] == len(said["backends"])
        return {each["id"]: each for each in said["backends"]}


def _count(pop: Pop) -> int:
    return max(len(pop.proxy.seen("api")), 1)


def registration(backend: Backend, **more: object) -> dict[str, object]:
    """Return what a backend registers with."""
    return {
        "id": backend.id,
        "app": "myapp",
        "region": "sa",
        "ip": backend.host,
        "port": backend.port,
        **more,
    }


def running(pop: Pop, backend_id: str) -> Backend:
    """Return a backend that runs and that nobody knows of."""
    backend = pop.keep(Backend(backend_id))
    backend.start()
    return backend


def serve(pop: Pop, **variables: str) -> Api:
    """Start a proxy with an API."""
    return serve_with(pop, None, **variables)


def serve_with(pop: Pop, max_descriptors: int | None, **variables: str) -> Api:
    """Start a proxy with an API and with few descriptors."""
    settings = {
        "EDGEPROXY_API_ENABLED": "true",
        "EDGEPROXY_API_LISTEN_ADDR": "127.0.0.1:0",
        "EDGEPROXY_DB_RELOAD_SECS": "60",  # what is registered is not waited for
        **variables,
    }
    pop.serve_with(SERVE, max_descriptors, **settings)
    return Api(pop)
