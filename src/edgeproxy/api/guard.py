"""Decides whether a request reaches the API: the first stage of every request.

The caller's address is judged when it connects (`allows`). Once the head of a request is known
(`admit`): its rate, its token, the page that sends it, the length of the body. Once all of it is
known (`answer`): the type of the body. Every refusal is JSON. Nothing of a request is logged.

Without a token, a browser may not write, nor read under a name that a foreign page can have. Such a
page could make the browser of a user send requests to any address that the user can reach; `Origin`
and `Sec-Fetch-Site` give it away where it writes, `Host` where it reads. With a token this check is
not needed, because a foreign page does not know the token.
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
from edgeproxy.api.http1.message import Answer, Head
from edgeproxy.api.settings import ApiSettings
from edgeproxy.control.admin.host_header import is_own_host
from edgeproxy.control.admin.pages import JSON
from edgeproxy.core.admission.client_key import key_of
from edgeproxy.core.admission.rate_limit import RateLimit, RateLimitSettings
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

MAX_BODY_BYTES = 64 * 1024
OPEN_PATHS = ("/health", "/ready")
"""Paths that need no token: load balancers probe them."""
SINGLE = (b"host", b"authorization", b"content-type", b"origin", b"sec-fetch-site")
"""Header fields that decide something here: a request that has one of them twice is refused."""
READS = ("GET", "HEAD", "OPTIONS")
BURST_SECS = 2
MAX_CALLERS = 65_536


class Guard:
    """Passes requests to an ASGI application, or refuses them.

    `limited` is told the address and the time when a caller that asks too fast is refused;
    `own_callers` are never allowed.
    """

    def __init__(
        self,
        app: App,
        settings: ApiSettings,
        token: Secret,
        limited: Callable[[str, float], None],
        own_callers: OwnCallers | None = None,
    ) -> None:
        self._app = app
        self._own_callers = own_callers
        self._timeout_secs = settings.timeout_secs
        self._limited = limited
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

    def admit(self, head: Head) -> None:
        """Raise FaultError if the head of a request says that it is refused."""
        now = time.monotonic()
        if not self._rate.take(key_of(head.caller), now):
            self._limited(head.caller, now)
            raise FaultError(429, "too many requests", headers={"Retry-After": "1"})
        headers = head.by_name
        if len(headers) != len(head.headers):
            _check_single(head)
        if self._token:
            self._check_token(head, headers)
        else:
            _check_page(head, headers)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > MAX_BODY_BYTES:
            raise too_long()

    async def answer(self, head: Head, body: bytes) -> Answer:
        """Return the answer to a request that has been admitted."""
        try:
            _check_kind(head, body)
            async with asyncio.timeout(self._timeout_secs):
                if self._own_callers is not None and await self._own_callers.has(
                    head.client, head.server
                ):
                    raise FaultError(403, "a client of this proxy may not call its API")
                return await _called(self._app, head, body)
        except FaultError as fault:
            return refusal(fault)
        except TimeoutError:
            reason = f"the answer took longer than {self._timeout_secs:g} s"
            return refusal(FaultError(503, reason, headers={"Retry-After": "1"}))
        except Exception:  # noqa: BLE001
            log.bug("api_failed")
            return refusal(FaultError(500, "internal error; the log has the details"))

    def _check_token(self, head: Head, headers: Mapping[bytes, bytes]) -> None:
        shown = headers.get(b"authorization", b"")
        is_known = hmac.compare_digest(b"Bearer " + shown[7:], self._token)
        has_scheme = shown[:7].lower() == b"bearer "
        if not (is_known and has_scheme) and head.path not in OPEN_PATHS:
            reason = "this is not the token" if shown else "a bearer token is needed"
            raise FaultError(401, reason, headers={"WWW-Authenticate": "Bearer"})


def _check_single(head: Head) -> None:
    names = [name for name, _ in head.headers]
    for name in SINGLE:
        if names.count(name) > 1:
            raise FaultError(400, f"the header field {name.decode()} is there twice")


def _check_page(head: Head, headers: Mapping[bytes, bytes]) -> None:
    """Refuse what a foreign page may have let a browser ask."""
    if head.method not in READS:
        site = headers.get(b"sec-fetch-site", b"none")
        if b"origin" in headers or site != b"none":
            raise FaultError(403, "a browser may not write here without a token")
    elif head.path not in OPEN_PATHS and not is_own_host(
        headers.get(b"host", b"").decode("latin-1")
    ):
        raise FaultError(
            403,
            "without a token the API answers only under an address or a private name, so that "
            "no foreign page can read it: ask by address, or set EDGEPROXY_API_TOKEN",
            "Host",
        )


def _check_kind(head: Head, body: bytes) -> None:
    kind = head.by_name.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if body and kind != JSON.encode():
        raise FaultError(415, "a body has to be JSON, with `Content-Type: application/json`")


async def _called(app: App, head: Head, body: bytes) -> Answer:
    """Return what an ASGI application answers."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": head.method,
        "root_path": "",
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "headers": head.headers,
        "client": head.client,
        "server": head.server,
        "caller": head.caller,
    }
    requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status, headers, parts = 500, [], []

    async def receive() -> Message:
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status, headers, parts)


def refusal(fault: FaultError) -> Answer:
    """Return the answer that tells a fault."""
    body = msgspec.json.encode(FaultView(str(fault), fault.field))
    headers = {"Content-Type": JSON, "Content-Length": str(len(body)), **fault.headers}
    raw = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
    return Answer(fault.status, raw, (body,))


def too_long() -> FaultError:
    """Return the fault of a body that is too long."""
    return FaultError(413, f"a body may have up to {MAX_BODY_BYTES} bytes")
