"""Membership on real sockets, on loopback."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from edgeproxy.cluster.builtin.gossip import MALFORMED, MISNAMED, STALE, Gossip
from edgeproxy.cluster.builtin.keys import KeyRing, key_ring, new_key
from edgeproxy.cluster.builtin.sealing import Dropped, Sealer
from edgeproxy.cluster.builtin.udp_socket import UdpSocket
from edgeproxy.cluster.settings import Peer
from edgeproxy.core.cluster.swim.events import Event, EventKind
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.core.cluster.swim.messages import Gossip as News
from edgeproxy.core.cluster.swim.messages import Ping
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.tuning import Tuning
from edgeproxy.values import ListenAddress, Secret
from edgeproxy.wire.gossip import encode

KEY, OTHER_KEY = new_key(), new_key()
TUNING = Tuning(period_secs=0.2, suspicion_least_secs=0.8)


def ring(*keys: Secret) -> KeyRing:
    return key_ring(Secret(",".join(key.reveal() for key in keys or (KEY,))))


class Pop:
    """One node on a socket of its own."""

    def __init__(
        self,
        name: str,
        peers: Sequence[Address] = (),
        host: str = "127.0.0.1",
        instance: int = 1,
        cluster: str = "test",
        keys: KeyRing | None = None,
    ) -> None:
        self.udp = UdpSocket(ListenAddress(host, 0))
        self.address = self.udp.address
        me = Record(name, instance, 0, State.ALIVE, "eu", self.address, self.address)
        self.membership = Membership(me, TUNING, random.Random(1), time.monotonic())
        self.events: list[Event] = []
        self.gossip = Gossip(
            self.udp,
            self.membership,
            keys or ring(),
            cluster,
            [Peer(*peer) for peer in peers],
            self.events.append,
            TUNING.tick_secs,
        )
        self.running = asyncio.get_running_loop().create_task(self.gossip.run())

    def states(self) -> dict[str, State]:
        return {name: each.state for name, each in self.membership.roster.members.items()}

    def live(self) -> set[str]:
        return {each.record.node_id for each in self.membership.roster.live()}

    async def crash(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.udp.close()


@asynccontextmanager
async def crashing(*pops: Pop) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for pop in pops:
            await pop.crash()


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


async def heard_again(pop: Pop) -> None:
    before = pop.gossip.received.total()
    await until(lambda: pop.gossip.received.total() > before + 3, "heard")


def test_three_nodes_join_one_crashes_and_one_leaves() -> None:
    async def run() -> None:
        a = Pop("a")
        b, c = Pop("b", [a.address]), Pop("c", [a.address])
        async with crashing(a, b, c):
            await until(lambda: a.live() == {"b", "c"} and b.live() == {"a", "c"}, "joined")
            await until(lambda: c.live() == {"a", "b"}, "joined")
            await c.crash()
            await until(lambda: a.states()["c"] == b.states()["c"] == State.DEAD, "dead")
            kinds = [event.kind for event in a.events if event.record.node_id == "c"]
            assert kinds[0] is EventKind.UP
            assert kinds[-2:] == [EventKind.SUSPECTED, EventKind.DEAD]
            again = Pop("c", [a.address], instance=2)
            async with crashing(again):
                await until(lambda: "c" in a.live() and "c" in b.live(), "back")
                b.membership.leave()
                async with asyncio.timeout(10):
                    await b.running
                await until(lambda: a.states()["b"] == State.LEFT, "left")
                await until(lambda: again.states()["b"] == State.LEFT, "left")
        assert a.gossip.received[ring().primary.id] > 0
        assert not a.gossip.dropped

    asyncio.run(run())


def test_nodes_of_both_ip_versions_join() -> None:
    async def run() -> None:
        a = Pop("a", host="::1")
        b = Pop("b", [a.address], host="::1")
        async with crashing(a, b):
            await until(lambda: a.live() == {"b"} and b.live() == {"a"}, "joined")

    asyncio.run(run())


def test_a_node_of_another_cluster_or_key_is_not_answered() -> None:
    async def run() -> None:
        a = Pop("a")
        b = Pop("b", [a.address], cluster="other")
        c = Pop("c", [a.address], keys=ring(OTHER_KEY))
        async with crashing(a, b, c):
            await until(lambda: a.gossip.dropped[Dropped.FORGED] > 1, "forged")
            await until(lambda: a.gossip.dropped[Dropped.UNKNOWN_KEY] > 1, "key")
            assert (a.states(), b.states(), c.states()) == ({}, {}, {})
            assert a.gossip.sent == 0
            assert not a.events

    asyncio.run(run())


def test_keys_are_replaced_while_all_stay_members() -> None:
    async def run() -> None:
        a = Pop("a")
        b = Pop("b", [a.address])
        async with crashing(a, b):
            await until(lambda: a.live() == {"b"} and b.live() == {"a"}, "joined")
            for keys in (ring(KEY, OTHER_KEY), ring(OTHER_KEY, KEY), ring(OTHER_KEY)):
                for pop in (a, b):
                    pop.gossip.use(keys)
                    await heard_again(pop)
            assert not a.gossip.dropped
            assert not b.gossip.dropped
            assert EventKind.DEAD not in {event.kind for event in a.events + b.events}

    asyncio.run(run())


def test_what_is_no_message_is_counted_and_not_answered() -> None:
    async def run() -> None:
        a, sender = Pop("a"), UdpSocket(ListenAddress("127.0.0.1", 0))
        async with crashing(a):
            sealer = Sealer(ring(), "test", "x", 5)
            datagrams = (
                b"",
                b"x" * 1300,
                b"hello" * 20,
                sealer.seal(b"no message"),
                sealer.seal(encode(Ping("another", "a", 1, 0, 0))),
            )
            for datagram in datagrams:
                sender.send(datagram, a.address)
            expected = {Dropped.LENGTH: 2, Dropped.FOREIGN: 1, MALFORMED: 1, MISNAMED: 1}
            await until(lambda: a.gossip.dropped.total() == 5, "counted")
            assert a.gossip.dropped == expected
            assert a.gossip.sent == 0
            assert a.states() == {}
            sender.close()

    asyncio.run(run())


def test_a_recorded_datagram_of_an_earlier_start_changes_nothing() -> None:
    async def run() -> None:
        a = Pop("a")
        b = Pop("b", [a.address], instance=7)
        sender = UdpSocket(ListenAddress("127.0.0.1", 0))
        async with crashing(a, b):
            await until(lambda: a.live() == {"b"}, "joined")
            ghost = Record("ghost", 1, 0, State.ALIVE, "eu", b.address, b.address)
            recorded = Sealer(ring(), "test", "b", 6).seal(encode(News("b", (ghost,))))
            for _ in range(20):
                sender.send(recorded, a.address)
            await until(lambda: a.gossip.dropped[STALE] == 20, "stale")
            assert a.live() == {"b"}
            assert a.membership.roster.members["b"].record.instance == 7
            sender.close()

    asyncio.run(run())


def test_names_that_lead_nowhere_do_not_hold_up_the_rest() -> None:
    async def run() -> None:
        a = Pop("a")
        b = Pop("b", [Address("127.0.0.1", 9), a.address])
        async with crashing(a, b):
            await until(lambda: a.live() == {"b"}, "joined")

    asyncio.run(run())
