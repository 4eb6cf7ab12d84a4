"""Who asks the API too fast is refused, and others are not; nor may a foreign page read."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import SINGLE, Guard, Receive, Scope, Send
from edgeproxy.api.http1.message import Head
from edgeproxy.api.settings import NO_TOKEN, ApiSettings
from edgeproxy.values import Secret

BACKENDS = "/api/v1/backends"


async def fine(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with 200."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


def guard_of(settings: ApiSettings, token: Secret = NO_TOKEN) -> tuple[Guard, list[str]]:
    """Return a guard, and the callers that it found too fast."""
    limited: list[str] = []
    return Guard(fine, settings, token, lambda caller, _now: limited.append(caller)), limited


def head(
    caller: str = "127.0.0.1", method: str = "GET", path: str = "/health", **headers: str
) -> Head:
    """Return the head of a request."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Head(method, path, path.encode(), b"", fields, caller)


def refused(guard: Guard, asked: Head) -> FaultError | None:
    """Return why a request is refused, None if it is not."""
    try:
        guard.admit(asked)
    except FaultError as fault:
        return fault
    return None


@pytest.mark.parametrize("rate", [5, 40])
def test_a_caller_that_asks_too_fast_hears_when_to_come_back(rate: int) -> None:
    guard, limited = guard_of(ApiSettings(rate_limit=rate))
    faults = [refused(guard, head()) for _ in range(rate * 3)]
    assert faults[: rate * 2] == [None] * (rate * 2)
    late = [each for each in faults if each is not None]
    assert late
    assert (late[0].status, late[0].headers["Retry-After"]) == (429, "1")
    assert limited == ["127.0.0.1"] * len(late)
    assert refused(guard, head("127.0.0.2")) is None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8081", "localhost.com"])
def test_a_name_that_a_foreign_page_can_have_reads_nothing_without_a_token(host: str) -> None:
    guard, _ = guard_of(ApiSettings())
    for method in ("GET", "HEAD", "OPTIONS"):
        fault = refused(guard, head(method=method, path=BACKENDS, host=host))
        assert fault is not None
        assert fault.status == 403
        assert "EDGEPROXY_API_TOKEN" in str(fault)
    assert refused(guard, head(path="/health", host=host)) is None
    with_token, _ = guard_of(ApiSettings(), Secret("t0ken"))
    shown = {"host": host, "authorization": "Bearer t0ken"}
    assert refused(with_token, head(path=BACKENDS, **shown)) is None


@pytest.mark.parametrize("token", [NO_TOKEN, Secret("t0ken")])
@pytest.mark.parametrize("name", SINGLE)
def test_what_decides_something_may_be_there_once(name: bytes, token: Secret) -> None:
    guard, _ = guard_of(ApiSettings(), token)
    fields = [(name, b"127.0.0.1"), (b"accept", b"a"), (name, b"Bearer t0ken"), (b"accept", b"b")]
    for given in (fields, fields[::-1]):
        asked = Head("GET", BACKENDS, BACKENDS.encode(), b"", given, "127.0.0.1")
        fault = refused(guard, asked)
        assert fault is not None
        assert fault.status == 400
        assert name.decode() in str(fault)


def test_what_the_application_answers_is_the_answer() -> None:
    guard, _ = guard_of(ApiSettings())
    assert asyncio.run(guard.answer(head(), b"")).status == 200
    assert asyncio.run(guard.answer(head(method="POST"), b"{}")).status == 415
