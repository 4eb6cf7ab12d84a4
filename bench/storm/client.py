"""A client, and the stream that it sends and compares with what comes back."""

from __future__ import annotations

import asyncio
import random
import socket

from bench.storm.fault import FaultError
from bench.storm.protocol import CHUNK, GREETING_BYTES, exactly

RING_BYTES = 262_147  # prime, so that no buffer size can hide a shifted or repeated part
RING = random.Random(0).randbytes(RING_BYTES) * 2


class Client:
    """One connection through the proxy; what it hears must be what it said.

    Attributes:
        said: Bytes of its stream that it has sent.
        heard: Bytes of its stream that have come back.
        is_greeted: Whether a backend has spoken to it.
    """

    def __init__(self, tcp: socket.socket, dice: random.Random) -> None:
        self.tcp = tcp
        self.dice = dice
        self.said = self.heard = 0
        self.is_greeted = False
        self._start = dice.randrange(RING_BYTES)

    async def say(self, count: int) -> None:
        """Send the next `count` bytes of the stream."""
        loop, end = asyncio.get_running_loop(), self.said + count
        while self.said < end:
            part = self._slice(self.said, min(CHUNK, end - self.said))
            await loop.sock_sendall(self.tcp, part)
            self.said += len(part)

    async def hear(self, count: int) -> None:
        """Receive the next `count` bytes of the stream. Raises FaultError if they are not."""
        loop, end = asyncio.get_running_loop(), self.heard + count
        while self.heard < end:
            part = await loop.sock_recv(self.tcp, min(CHUNK, end - self.heard))
            if not part:
                raise FaultError(f"short: ended after {self.heard} bytes of {end}")
            if part != self._slice(self.heard, len(part)):
                raise FaultError(f"wrong bytes at {self.heard}")
            self.heard += len(part)

    async def hear_end(self) -> None:
        """Receive an ordinary end. Raises FaultError if anything else comes."""
        if await asyncio.get_running_loop().sock_recv(self.tcp, 1):
            raise FaultError(f"more than was sent, after {self.heard} bytes")

    async def echo(self, count: int) -> None:
        """Send `count` bytes and receive them back meanwhile."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.say(count))
            group.create_task(self.hear(count))

    async def choose(self, mode: bytes) -> None:
        """Hear the backend's greeting, and tell it how to go on."""
        try:
            greeting = await exactly(self.tcp, GREETING_BYTES)
        except EOFError:
            raise FaultError("turned away") from None
        if not greeting.startswith(b"node-"):
            raise FaultError(f"wrong greeting: {greeting!r}")
        self.is_greeted = True
        await asyncio.get_running_loop().sock_sendall(self.tcp, mode)

    def end(self) -> None:
        """Send a FIN."""
        self.tcp.shutdown(socket.SHUT_WR)

    async def finish(self) -> None:
        """Send a FIN and receive the other one."""
        self.end()
        await self.hear_end()

    def _slice(self, start: int, length: int) -> bytes:
        start = (self._start + start) % RING_BYTES
        return RING[start : start + length]
