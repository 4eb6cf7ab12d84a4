"""Names of members are looked up for ever."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgeproxy.cluster.builtin import bootstrap
from edgeproxy.cluster.builtin.bootstrap import Bootstrap
from edgeproxy.cluster.settings import Peer
from edgeproxy.core.cluster.swim.records import Address


class Names:
    """A resolver for the loop: what it knows changes."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked = 0

    async def getaddrinfo(
        self, host: str, port: int, **_kind: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        self.asked += 1
        if host not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 2, 17, "", (address, port)) for address in self.known[host]]


def test_names_are_looked_up_again_and_one_that_fails_keeps_what_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "LOOKUP_SECS", 0.001)
    monkeypatch.setattr(bootstrap, "FIRST_RETRY_SECS", 0.001)
    names, taken = Names(), asyncio.Queue[list[Address]]()
    both = Bootstrap([Peer("a", 1), Peer("b", 2)])

    async def next_that(differs: list[Address]) -> list[Address]:
        async with asyncio.timeout(10):
            while (found := await taken.get()) == differs:
                pass
        return found

    async def run() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", names.getaddrinfo)
        following = loop.create_task(both.follow(taken.put_nowait))
        async with asyncio.timeout(10):
            while len(both.failures) < 2 or names.asked < 6:
                await asyncio.sleep(0.001)
        assert taken.empty()
        names.known = {"a": ["192.0.2.1", "2001:db8::1"]}
        found = await next_that([])
        assert found == [Address("192.0.2.1", 1), Address("2001:db8::1", 1)]
        names.known = {"b": ["192.0.2.2"]}
        assert await next_that(found) == [*found, Address("192.0.2.2", 2)]
        assert set(both.failures) == {Peer("a", 1)}
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(run())


def test_addresses_need_no_resolver() -> None:
    async def run() -> list[Address]:
        taken = asyncio.Queue[list[Address]]()
        peers = Bootstrap([Peer("127.0.0.1", 5), Peer("::1", 6)])
        following = asyncio.create_task(peers.follow(taken.put_nowait))
        try:
            async with asyncio.timeout(10):
                while len(found := await taken.get()) < 2:
                    pass
            return found
        finally:
            following.cancel()

    assert asyncio.run(run()) == [Address("127.0.0.1", 5), Address("::1", 6)]


def test_a_name_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Names):
        async def getaddrinfo(
            self, host: str, port: int, **kind: object
        ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            if host == "hangs":
                await asyncio.Event().wait()
            return await super().getaddrinfo(host, port, **kind)

    async def run() -> list[Address]:
        names, taken = Hanging(), asyncio.Queue[list[Address]]()
        names.known = {"a": ["192.0.2.1"]}
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)
        peers = Bootstrap([Peer("hangs", 1), Peer("a", 1)])
        following = asyncio.create_task(peers.follow(taken.put_nowait))
        try:
            async with asyncio.timeout(5):
                return await taken.get()
        finally:
            following.cancel()

    assert asyncio.run(run()) == [Address("192.0.2.1", 1)]
