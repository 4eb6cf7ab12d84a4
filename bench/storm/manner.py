"""The manners of clients: what one does with its connection, and how often each occurs.

A manner returns when its client may close, and raises FaultError or OSError if it was not
served as it should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.storm.client import Client
from bench.storm.fault import FaultError
from bench.storm.protocol import CLOSE, ECHO, PREFACE_BYTES, RESET, reset_on_close


async def ping_pong(client: Client) -> None:
    """Exchange many small messages."""
    await client.choose(ECHO)
    for _ in range(client.dice.randint(1, 100)):
        await client.echo(client.dice.randint(1, 1000))
    await client.finish()


async def bulk(client: Client) -> None:
    """Send and receive megabytes at once."""
    await client.choose(ECHO)
    await client.echo(client.dice.randint(1, 6_000_000))
    await client.finish()


async def half_close(client: Client) -> None:
    """Say everything, end, and only then hear it; the kernel's buffers hold that much."""
    await client.choose(ECHO)
    size = client.dice.randint(1, 100_000)
    await client.say(size)
    client.end()
    await client.hear(size)
    await client.hear_end()


async def stall(client: Client) -> None:
    """Leave what comes back unread for a while."""
    await client.choose(ECHO)
    size = client.dice.randint(1_000_000, 8_000_000)
    saying = asyncio.create_task(client.say(size))
    try:
        await asyncio.sleep(client.dice.uniform(0.05, 1.0))
        await client.hear(size)
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
    await client.finish()


async def idle(client: Client) -> None:
    """Say little and pause in between."""
    await client.choose(ECHO)
    for _ in range(3):
        await client.echo(100)
        await asyncio.sleep(client.dice.uniform(0.0, 0.7))
    await client.finish()


async def leave_at_once(client: Client) -> None:
    """Say nothing at all."""
    if client.dice.random() < 0.5:
        reset_on_close(client.tcp)


async def reset_in_the_middle(client: Client) -> None:
    """Reset with bytes on the way in both directions."""
    await client.choose(ECHO)
    await client.say(client.dice.randint(1, 200_000))
    reset_on_close(client.tcp)


async def leave_in_the_middle(client: Client) -> None:
    """Close with bytes unread, after having checked some."""
    await client.choose(ECHO)
    size = client.dice.randint(2, 200_000)
    await client.say(size)
    await client.hear(size // 2)


async def be_left(client: Client) -> None:
    """Go on sending after the backend has ended its direction."""
    await client.choose(CLOSE)
    await client.echo(PREFACE_BYTES)
    await client.hear_end()
    await client.say(client.dice.randint(1, 500_000))


async def be_reset(client: Client) -> None:
    """Hear everything that the backend said before it reset, and then the reset."""
    await client.choose(RESET)
    await client.echo(PREFACE_BYTES)
    try:
        await client.hear_end()
    except ConnectionResetError:
        return
    raise FaultError("a reset came as an ordinary end")


async def long_transfer(client: Client) -> None:
    """Be busy for some seconds, and then be served to the end."""
    await client.choose(ECHO)
    for _ in range(30):
        await client.echo(client.dice.randint(1, 300_000))
        await asyncio.sleep(0.05)
    await client.finish()


Manner = Callable[[Client], Awaitable[None]]

MANNERS: dict[Manner, int] = {
    ping_pong: 30,
    bulk: 8,
    half_close: 10,
    stall: 4,
    idle: 6,
    leave_at_once: 8,
    reset_in_the_middle: 8,
    leave_in_the_middle: 8,
    be_left: 8,
    be_reset: 8,
}
