"""Who asks the API too fast is refused, and others are not."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.api.guard import Guard, Message, Receive, Scope, Send
from edgeproxy.api.settings import NO_TOKEN, ApiSettings


async def fine(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def answers(guard: Guard, caller: str, count: int) -> list[Message]:
    """Return how each of so many requests is answered: status and headers."""
    heads: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            heads.append(message)

    for _ in range(count):
        scope = {"type": "http", "method": "GET", "path": "/health", "headers": []}
        await guard(scope | {"client": (caller, 1)}, receive, send)
    return heads


@pytest.mark.parametrize("rate", [5, 40])
def test_a_caller_that_asks_too_fast_hears_when_to_come_back(rate: int) -> None:
    async def scenario() -> None:
        guard = Guard(fine, ApiSettings(rate_limit=rate), NO_TOKEN)
        heads = await answers(guard, "127.0.0.1", rate * 3)
        assert [each["status"] for each in heads[: rate * 2]] == [200] * (rate * 2)
        late = [each for each in heads if each["status"] == 429]
        assert late
        assert dict(late[0]["headers"])[b"retry-after"] == b"1"
        assert [each["status"] for each in await answers(guard, "127.0.0.2", 1)] == [200]

    asyncio.run(scenario())
