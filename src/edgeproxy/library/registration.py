"""Registers a backend with a proxy: register, send heartbeats, deregister. See docs/api.md."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, quote, urlsplit

from edgeproxy.errors import reason_of

TIMEOUT_SECS = 10.0
LEAVING_SECS = 3.0
"""How long `stop` waits for the API. If it never answers, the lease expires anyway."""
FIRST_RETRY_SECS = 0.2
TTL_SECS = 60.0
"""The TTL to assume until the API says how often to send heartbeats."""
_TOKEN = re.compile(r"[!-~]*")
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, RecursionError)


class RegistrationRefusedError(ValueError):
    """The API does not accept this backend; the message says why."""


class Registration:
    """Keeps a backend registered while a block lasts, or from `start` to `stop`.

    Args:
        api: The URL of the API, such as http://10.50.0.1:8081.
        id, app, region, ip, port: The backend.
        token: The token, if the API demands one.
        changed: Called on another thread with a new fault, or "" once it is over.
        more: country, weight, soft_limit, hard_limit, if they are not the API's defaults.

    `start` raises RegistrationRefusedError. While the API cannot be reached, a background thread
    tries again.
    """

    def __init__(
        self,
        api: str,
        *,
        id: str,  # noqa: A002 — as the API calls it
        app: str,
        region: str,
        ip: str,
        port: int,
        token: str = "",
        changed: Callable[[str], object] = lambda _fault: None,
        **more: str | int,
    ) -> None:
        self._address = _address(api)
        if not _TOKEN.fullmatch(token):  # the message does not show it
            raise ValueError("token must be one line of printable ASCII characters without spaces")
        self._id = id
        self._body = {"id": id, "app": app, "region": region, "ip": ip, "port": port, **more}
        self._token = token
        self._changed = changed
        self._beat_secs = TTL_SECS / 3
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_registered = False
        self.last_fault = ""

    def start(self) -> None:
        """Register, and send heartbeats from now on."""
        pause_secs = self._tend(FIRST_RETRY_SECS, is_first=True)
        self._thread = threading.Thread(target=self._run, args=(pause_secs,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Deregister. Never raises: if the API cannot be reached, the lease expires."""
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(LEAVING_SECS)
        if self.is_registered:
            self.is_registered = False
            path = f"/api/v1/backends/{quote(self._id, safe='')}"
            try:
                status, _ = self._ask("DELETE", path, timeout_secs=LEAVING_SECS)
                fault = "" if status in (200, 404) else f"the API answers {status}"
            except _NO_ANSWER as error:
                fault = str(error)
            self._tell(fault and f"the backend was not deregistered: {fault}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, pause_secs: float) -> None:
        retry_secs = FIRST_RETRY_SECS
        while not self._leaving.wait(pause_secs):
            pause_secs = self._tend(retry_secs)
            retry_secs = min(retry_secs * 2, self._beat_secs) if self.last_fault else 0.2

    def _tend(self, retry_secs: float, *, is_first: bool = False) -> float:
        """Send a heartbeat, or register where needed; return the pause until the next one."""
        try:
            status, fault = 404, ""
            if self.is_registered:
                status, _ = self._ask("POST", f"/api/v1/heartbeat/{quote(self._id, safe='')}")
                fault = f"the API answers {status}"
            if status == 404:
                self.is_registered = False
                status, said = self._ask("POST", "/api/v1/register", self._body)
                fault = str(said.get("error", f"the API answers {status}"))
                self.is_registered = status in (200, 201)
                self._beat_secs = _beat_secs(said) or self._beat_secs
        except _NO_ANSWER as error:
            status, fault = 0, f"the API does not answer: {reason_of(error)}"
        is_well = status in (200, 201)
        self._tell("" if is_well else fault)
        if is_first and 400 <= status < 500 and status not in (408, 429):
            raise RegistrationRefusedError(fault)
        return (self._beat_secs if is_well else retry_secs) * random.uniform(0.8, 1.0)  # noqa: S311

    def _tell(self, fault: str) -> None:
        if fault != self.last_fault:
            self.last_fault = fault
            self._changed(fault)

    def _ask(
        self, method: str, path: str, body: object = None, timeout_secs: float = TIMEOUT_SECS
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the content of the answer to a request."""
        https = self._address.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(str(self._address.hostname), self._address.port, timeout=timeout_secs)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, self._address.path.rstrip("/") + path, text, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            return answer.status, said if isinstance(said, dict) else {}
        finally:
            connection.close()


def _address(api: str) -> SplitResult:
    with suppress(ValueError):  # of the port, too
        address = urlsplit(api)
        if address.scheme in ("http", "https") and address.hostname and address.port != 0:
            return address
    raise ValueError(f"api must be a URL such as http://10.50.0.1:8081, not {api!r}")


def _beat_secs(answer: Mapping[str, object]) -> float | None:
    """Return the pause between heartbeats, None if the answer has no usable one."""
    secs = answer.get("heartbeat_secs")
    if isinstance(secs, int | float) and 0 < secs <= threading.TIMEOUT_MAX:
        return float(secs)
    return None
