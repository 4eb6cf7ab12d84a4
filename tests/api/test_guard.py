"""Who asks the API too fast is refused, and others are not."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.api.fault import FaultError
from edgeproxy.api.guard import Guard, Receive, Scope, Send
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


def test_what_the_application_answers_is_the_answer() -> None:
    guard, _ = guard_of(ApiSettings())
    assert asyncio.run(guard.answer(head(), b"")).status == 200
    assert asyncio.run(guard.answer(head(method="POST"), b"{}")).status == 415
