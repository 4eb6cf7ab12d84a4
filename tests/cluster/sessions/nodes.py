"""Nodes with real sockets on loopback, and strangers of several kinds."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self

from edgeproxy.cluster.sessions.auth import Identity
from edgeproxy.cluster.sessions.quic import configuration
from edgeproxy.cluster.sessions.quic.endpoint import Endpoint
from edgeproxy.cluster.sessions.quic.link import Link, Uses
from edgeproxy.cluster.sessions.transport import Transport
from edgeproxy.values import ListenAddress

DEADLINE_SECS = 30.0
KEY = b"k" * 32
OTHER_KEY = b"o" * 32


class StubKey:
    """A key, without the care that one for use needs."""

    def __init__(self, secret: bytes, id_: bytes | None = None) -> None:
        self._secret = secret
        self.id = id_ or hashlib.sha256(b"id" + secret).digest()[:4]

    def derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self._secret, purpose, "sha256")


class Keys:
    """A ring: the first key is the primary one."""

    def __init__(self, *secrets: bytes) -> None:
        self._keys = tuple(map(StubKey, secrets))

    @property
    def primary(self) -> StubKey:
        return self._keys[0]

    def __iter__(self) -> Iterator[StubKey]:
        return iter(self._keys)


async def until(
    condition: Callable[[], object], what: str, deadline_secs: float = DEADLINE_SECS
) -> None:
    """Return as soon as `condition()` is true; fail naming `what` after the deadline."""
    try:
        async with asyncio.timeout(deadline_secs):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {deadline_secs} s: {what}") from None


class Node:
    """A node of a cluster. It notes what it is told."""

    def __init__(
        self,
        name: str,
        *secrets: bytes,
        cluster: str = "edge",
        versions: tuple[int, int] = (1, 1),
    ) -> None:
        self.name = name
        self.joined: list[str] = []
        self.left: list[tuple[str, str]] = []
        self.frames: list[tuple[str, bytes]] = []
        identity = Identity(name, cluster, Keys(*(secrets or (KEY,))), versions)
        self.transport = Transport(
            identity, self.joined.append, self._take, self._leave, random.Random(name)
        )
        self.address = ""

    def _take(self, peer: str, frame: bytes) -> None:
        self.frames.append((peer, frame))

    def _leave(self, peer: str, why: str) -> None:
        self.left.append((peer, why))

    async def listen(self, port: int = 0) -> Node:
        self.address = str(await self.transport.listen(ListenAddress("127.0.0.1", port)))
        return self

    @property
    def at(self) -> tuple[str, int]:
        """The address as `socket` has it."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def dial(self, *others: Node) -> None:
        for other in others:
            self.transport.connect(other.name, other.address)

    @property
    def peers(self) -> set[str]:
        return set(self.transport.sessions())

    def got_from(self, peer: str) -> list[bytes]:
        return [frame for whose, frame in self.frames if whose == peer]

    def refused(self) -> dict[str, int]:
        return {reason: times for reason, times in self.transport.refused.items() if times}

    def vanish(self) -> None:
        """Be gone without a word, as after `kill -9`: nothing is sent or heard any more."""
        for endpoint in self.transport._endpoints.values():
            endpoint.close()

    async def close(self) -> None:
        await self.transport.close()


class Cluster:
    """Starts nodes and ends them all. Use `async with`."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._strangers: list[Stranger] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self._nodes:
            try:
                await node.close()
            except (OSError, ValueError):
                pass  # it has vanished
        for stranger in self._strangers:
            stranger.close()

    async def node(self, name: str, *secrets: bytes, port: int = 0, **how: Any) -> Node:
        node = Node(name, *secrets, **how)
        self._nodes.append(node)
        return await node.listen(port)

    def stranger(self, host: str = "127.0.0.1") -> Stranger:
        self._strangers.append(Stranger(host))
        return self._strangers[-1]


class Stranger:
    """Speaks QUIC, and what a test wants on the stream."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((host, 0))
        self.endpoint = Endpoint(udp, configuration.answering(1.8e9), self._admit, self._accept)
        self.heard = bytearray()
        self.ends: list[str] = []
        self.ready: list[Link] = []
        self.on_accept: Callable[[Link], None] = lambda _link: None

    def _admit(self, _address: object) -> int:
        return 0

    def _accept(self, link: Link, _place: int) -> None:
        self._watch(link)
        self.on_accept(link)

    def _watch(self, link: Link) -> None:
        link.uses = Uses(
            lambda: self.ready.append(link), self.heard.extend, self.ends.append, self.ends.append
        )

    def dial(self, node: Node) -> Link:
        link = self.endpoint.link()
        self._watch(link)
        link.dial(node.at)
        return link

    async def connected(self, node: Node) -> Link:
        link = self.dial(node)
        await until(lambda: link in self.ready, "the handshake is complete")
        return link

    def close(self) -> None:
        self.endpoint.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run one test on an event loop of its own. What is reported to the loop fails it."""
    reported: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: reported.append(about))
        await main

    asyncio.run(guarded())
    assert not reported
