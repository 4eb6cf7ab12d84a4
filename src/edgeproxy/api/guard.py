"""Decides whether a request reaches the API: the first stage of every request.

The checks, in this order: the caller's address, its rate, its token, the origin of the page that
sends the request, the length and type of the body. Every refusal is JSON. Nothing of a request is
logged.

Without a token, a browser may not write. A foreign page could make the browser of a user send
requests to any address that the user can reach; `Origin` and `Sec-Fetch-Site` give such a page
away. With a token this check is not needed, because a foreign page does not know the token.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from edgeproxy.api.bodies import FaultView
from edgeproxy.api.fault import FaultError
from edgeproxy.api.settings import ApiSettings
from edgeproxy.control.admin.pages import JSON
from edgeproxy.core.admission.access import key_of
from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings
from edgeproxy.core.geo.address import normalise
from edgeproxy.core.geo.prefix import PRIVATE_NETWORKS, Prefixes
from edgeproxy.log import EventLog
from edgeproxy.registry.own_callers import OwnCallers
from edgeproxy.values import Secret

log = EventLog("api")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BYTES = 64 * 1024
OPEN_PATHS = ("/health", "/ready")
"""Paths that need no token: load balancers probe them."""
READS = ("GET", "HEAD", "OPTIONS")
BURST_SECS = 2
MAX_CALLERS = 65_536


class Guard:
    """Passes requests to the API, or refuses them."""

    def __init__(
        self,
        app: App,
        settings: ApiSettings,
        token: Secret,
        own_callers: OwnCallers | None = None,
    ) -> None:
        """`own_callers` are never allowed."""
        self._app = app
        self._own_callers = own_callers
        self._timeout_secs = settings.timeout_secs
        self.demand(token)
        self._allowed = Prefixes(dict.fromkeys(settings.allow or PRIVATE_NETWORKS, True))
        most = settings.rate_limit
        self._rate = RateLimit(RateLimitSettings(True, most, 1.0, most * BURST_SECS, MAX_CALLERS))

    def allows(self, caller: str) -> bool:
        """Return whether this address may call the API."""
        return bool(caller and self._allowed.find(caller.partition("%")[0]))

    def demand(self, token: Secret) -> None:
        """Require this token from now on; from any thread."""
        self._token = b"Bearer " + token.reveal().encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        fault = None
        body = None
        try:
            async with asyncio.timeout(self._timeout_secs):
                headers = dict(scope["headers"])
                if self._own_callers is not None and await self._own_callers.has(
                    scope["client"], scope["server"]
                ):
                    raise FaultError(403, "a client of this proxy may not call its API")
                self._admit(scope, headers)
                body = await _body(headers, receive)
                _check_kind(headers, body)
                await self._app(scope, _receive_once(body), answer)
        except FaultError as error:
            fault = error
        except TimeoutError:
            status = 408 if body is None else 503
            reason = f"the request took longer than {self._timeout_secs:g} s"
            fault = FaultError(status, reason, headers={"Retry-After": "1"})
        except Exception:  # noqa: BLE001
            log.bug("api_failed")
            fault = FaultError(500, "internal error; the log has the details")
        if fault is not None and not has_begun:
            await _refuse(fault, send)

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        caller = normalise(scope["client"][0]) if scope["client"] else ""
        scope["caller"] = caller
        if not self.allows(caller):
            raise FaultError(403, "this address may not call the API; see EDGEPROXY_API_ALLOW")
        if not self._rate.take(key_of(caller), time.monotonic()):
            raise FaultError(429, "too many requests", headers={"Retry-After": "1"})
        if self._token:
            shown = headers.get(b"authorization", b"")
            is_known = hmac.compare_digest(b"Bearer " + shown[7:], self._token)
            has_scheme = shown[:7].lower() == b"bearer "
            if not (is_known and has_scheme) and scope["path"] not in OPEN_PATHS:
                raise FaultError(
                    401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"}
                )
        elif scope["method"] not in READS:
            site = headers.get(b"sec-fetch-site", b"none")
            if b"origin" in headers or site != b"none":
                raise FaultError(403, "a browser may not write here without a token")


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """Return the body. Raises FaultError for one that is too long."""
    too_long = FaultError(
        413, f"a body may have up to {MAX_BYTES} bytes", headers={"Connection": "close"}
    )
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 18 or int(length) > MAX_BYTES:
        raise too_long
    parts = []
    count = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FaultError(400, "the connection ended before the request was complete")
        parts.append(message.get("body", b""))
        count += len(parts[-1])
        if count > MAX_BYTES:
            raise too_long
        if not message.get("more_body"):
            return b"".join(parts)


def _check_kind(headers: Mapping[bytes, bytes], body: bytes) -> None:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and kind != JSON.encode():
        raise FaultError(415, "a body has to be JSON, with `Content-Type: application/json`")


def _receive_once(body: bytes) -> Receive:
    """Return a `receive` that returns this body once."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def fault_body(fault: FaultError) -> bytes:
    """Return the JSON of a fault."""
    return msgspec.json.encode(FaultView(str(fault), fault.field))


async def _refuse(fault: FaultError, send: Send) -> None:
    body = fault_body(fault)
    headers = {"Content-Type": JSON, "Content-Length": str(len(body)), **fault.headers}
    raw = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
