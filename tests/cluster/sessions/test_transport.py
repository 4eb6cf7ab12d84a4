"""Nodes find each other, keep one session each, and lose nothing on it."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import closing

import pytest

from edgeproxy.cluster.sessions import dials, session, transport
from edgeproxy.cluster.sessions.quic import configuration
from edgeproxy.cluster.sessions.quic.endpoint import Endpoint
from edgeproxy.cluster.sessions.transport import TransportError
from edgeproxy.errors import WireError
from edgeproxy.values import ListenAddress
from tests.cluster.sessions.nodes import (
    DEADLINE_SECS,
    KEY,
    OTHER_KEY,
    Cluster,
    Keys,
    Node,
    run,
    until,
)
from tests.ports import free_port

MIB = 1 << 20


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a dead peer within some seconds."""
    monkeypatch.setattr(configuration, "IDLE_SECS", 2.0)
    monkeypatch.setattr(session, "DIALLED_PING_SECS", 0.5)


async def met(*nodes: Node) -> None:
    """Wait until each node has a session with each other one, and nothing besides."""
    names = {node.name for node in nodes}

    def is_done() -> bool:
        return all(
            node.peers == names - {node.name} and len(node.transport._open) == len(names) - 1
            for node in nodes
        )

    await until(is_done, f"{names} have met")


async def heard(node: Node, frames: int) -> None:
    await until(lambda: len(node.frames) >= frames, f"{frames} frames have come")


def test_a_node_that_is_dialled_and_the_one_that_dials_have_a_session() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("b"), await cluster.node("a")
            one.dial(other)
            await met(one, other)
            ours, theirs = one.transport.sessions()["a"], other.transport.sessions()["b"]
            assert (ours.dialled, theirs.dialled) == (True, False)
            assert (ours.address, theirs.address) == (other.address, one.address)
            assert ours.version == theirs.version == 1
            assert ours.key_id == Keys(KEY).primary.id
            await until(lambda: one.transport.sessions()["a"].rtt_secs, "the round-trip time")

    run(main())


def test_three_nodes_have_one_session_each() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            nodes = [await cluster.node(name) for name in "abc"]
            for node in nodes:
                node.dial(*(other for other in nodes if other is not node))
            await met(*nodes)
            for node in nodes:
                assert sorted(node.joined) == sorted({"a", "b", "c"} - {node.name})
                assert not node.left

    run(main())


def test_two_nodes_that_dial_each_other_at_once_agree_on_one_session() -> None:
    async def main() -> None:
        for _ in range(10):
            async with Cluster() as cluster:
                one, other = await cluster.node("a"), await cluster.node("b")
                one.dial(other)
                other.dial(one)
                await met(one, other)
                ours, theirs = one.transport.sessions()["b"], other.transport.sessions()["a"]
                assert ours.dialled != theirs.dialled
                assert one.transport.send("b", b"1")
                assert other.transport.send("a", b"2")
                await heard(one, 1)
                await heard(other, 1)
                assert (one.joined, other.joined) == (["b"], ["a"])

    run(main())


def test_frames_of_all_sizes_arrive_once_and_in_order_both_ways() -> None:
    async def main() -> None:
        rng = random.Random(1)
        sizes = [0, 1, 2, 3, 1199, 1200, 65535, 65536, 262144, MIB - 1, MIB] + [
            rng.randrange(5000) for _ in range(300)
        ]
        async with Cluster() as cluster:
            nodes = [await cluster.node(name) for name in "ab"]
            nodes[0].dial(nodes[1])
            await met(*nodes)
            sent = {
                node.name: [rng.randbytes(n) for n in rng.sample(sizes, len(sizes))]
                for node in nodes
            }
            waiting = {name: list(frames) for name, frames in sent.items()}
            while any(waiting.values()):
                for node, other in (nodes, nodes[::-1]):
                    while waiting[node.name] and node.transport.send(
                        other.name, waiting[node.name][0]
                    ):
                        waiting[node.name].pop(0)
                await asyncio.sleep(0.01)
            for node, other in (nodes, nodes[::-1]):
                await heard(node, len(sent[other.name]))
                assert node.got_from(other.name) == sent[other.name]

    run(main())


@pytest.fixture
def _bad_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose, double and delay datagrams, so that they also arrive in another order."""
    send, rng = Endpoint.send, random.Random(1)

    def send_badly(self: Endpoint, datagram: bytes, address: object) -> None:
        for _ in range(rng.choices((0, 1, 2), (5, 90, 5))[0]):
            asyncio.get_running_loop().call_later(
                rng.choice((0.0, 0.001, 0.02)), send, self, datagram, address
            )

    monkeypatch.setattr(Endpoint, "send", send_badly)


@pytest.mark.usefixtures("_bad_network")
def test_nodes_agree_and_frames_arrive_once_and_in_order_over_a_bad_network() -> None:
    async def main() -> None:
        rng = random.Random(2)
        async with Cluster() as cluster:
            nodes = [await cluster.node(name) for name in "abc"]
            for node in nodes:
                node.dial(*(other for other in nodes if other is not node))
            await met(*nodes)
            ends = [
                (tuple(sorted((node.name, peer))), each.link.channel)
                for node in nodes
                for peer, each in node.transport._sessions.items()
            ]
            assert len(ends) == 6
            assert len(set(ends)) == 3, "both ends of a pair use the same session"
            sent = [rng.randbytes(rng.randrange(3000)) for _ in range(50)]
            for frame in sent:
                for node in nodes:
                    for peer in node.peers:
                        assert node.transport.send(peer, frame)
            for node in nodes:
                await heard(node, 2 * len(sent))
                for peer in node.peers:
                    assert node.got_from(peer) == sent

    run(main())


def test_a_frame_that_cannot_go_is_said_to_be_not_sent() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            assert not one.transport.send("b", b"there is no session")
            one.dial(other)
            await met(one, other)
            with pytest.raises(WireError, match="too long"):
                one.transport.send("b", bytes(MIB + 1))
            sent = 0
            while one.transport.send("b", bytes(MIB)):
                sent += 1
            assert sent * MIB <= session.QUEUE_BYTES < (sent + 1) * (MIB + 4)
            assert one.transport.sessions()["b"].waiting_bytes <= session.QUEUE_BYTES
            await until(lambda: len(other.frames) == sent, "what was accepted arrives")
            assert one.transport.send("b", b"room again")

    run(main())


def test_a_node_is_dialled_until_it_is_there_and_again_when_it_comes_back() -> None:
    async def main() -> None:
        port = free_port()
        async with Cluster() as cluster:
            one = await cluster.node("b")
            one.transport.connect("a", f"127.0.0.1:{port}")
            one.transport.connect("a", f"127.0.0.1:{port}")
            other = await cluster.node("a", port=port)
            await met(one, other)
            await other.close()
            await until(lambda: not one.peers, "the end was noticed")
            again = await cluster.node("a", port=port)
            await met(one, again)
            assert one.joined == ["a", "a"]
            assert [peer for peer, _ in one.left] == ["a"]

    run(main())


def test_a_node_that_is_heard_of_again_is_dialled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dials, "pause_secs", lambda failures, _rng: 3600.0 if failures else 0.0)
    monkeypatch.setattr(session, "DIAL_SECS", 0.1)

    async def main() -> None:
        port = free_port()
        async with Cluster() as cluster:
            one = await cluster.node("b")
            one.transport.connect("a", f"127.0.0.1:{port}")
            dial = one.transport._dials._wanted["a"]
            await until(lambda: dial.failures, "the first dial has failed")
            monkeypatch.setattr(session, "DIAL_SECS", DEADLINE_SECS)
            other = await cluster.node("a", port=port)
            one.dial(other)
            await met(one, other)

    run(main())


@pytest.mark.usefixtures("_quick")
def test_a_peer_that_vanishes_is_noticed_from_both_ends() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            third = await cluster.node("c")
            one.dial(other)
            third.dial(one)
            await met_with(one, other, third)
            one.vanish()
            await until(lambda: not other.peers and not third.peers, "both have noticed")
            assert other.left == [("a", "nothing has been heard of it for too long")]
            assert third.left == other.left

    async def met_with(one: Node, *others: Node) -> None:
        await until(lambda: all(one.name in each.peers for each in others), "sessions")

    run(main())


@pytest.mark.usefixtures("_quick")
def test_a_session_on_which_nothing_is_said_is_kept() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            one.dial(other)
            await met(one, other)
            since = one.transport.sessions()["b"].since
            loop = asyncio.get_running_loop()
            await until(lambda: loop.time() > since + 3 * configuration.IDLE_SECS, "some time")
            assert one.transport.sessions()["b"].since == since
            assert not one.left
            assert not other.left

    run(main())


@pytest.mark.parametrize("lost", ["a", "b"])
def test_a_node_that_comes_back_at_once_need_not_wait_for_its_old_session_to_end(lost: str) -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            nodes = {name: await cluster.node(name) for name in "ab"}
            nodes["a"].dial(nodes["b"])
            await met(*nodes.values())
            stays = nodes["b" if lost == "a" else "a"]
            nodes[lost].vanish()
            again = await cluster.node(lost)
            again.dial(stays)
            await until(lambda: again.peers, "a new session", configuration.IDLE_SECS - 2)
            assert again.transport.send(stays.name, b"here")
            await until(lambda: stays.frames == [(lost, b"here")], "it is used at both ends")
            assert stays.joined == [lost, lost]
            assert len(stays.left) == 1

    run(main())


def test_a_node_that_dials_again_on_a_whim_does_not_end_the_session_that_works() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            other.dial(one)
            await met(one, other)
            other.transport.introduce(one.address)
            await until(lambda: len(one.transport._open) == 2, "the second one is there")
            await met(one, other)
            assert (one.left, other.left) == ([], [])

    run(main())


def test_whoever_is_at_an_address_can_be_met() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            one.transport.introduce(other.address)
            await met(one, other)
            one.transport.introduce(one.address)
            await until(lambda: "own_node_id" in one.refused(), "it has met itself")
            await met(one, other)

    run(main())


def test_a_node_that_moves_is_found_at_its_new_address() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            one.transport.connect("b", f"127.0.0.1:{free_port()}")
            await until(lambda: one.transport._open, "it dials the wrong one")
            one.dial(other)
            await met(one, other)

    run(main())


def test_a_name_is_looked_up_and_one_that_does_not_exist_harms_nobody() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            one.transport.connect("c", "nowhere.invalid:4002")
            one.transport.connect("b", f"localhost:{other.at[1]}")
            await until(lambda: "b" in one.peers, "a session by a name")

    run(main())


def test_a_node_that_is_not_wanted_any_more_is_neither_kept_nor_dialled() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            one.dial(other)
            await met(one, other)
            one.transport.disconnect("b")
            assert not one.peers
            await until(lambda: not other.peers, "the other end has noticed")
            assert one.transport._dials._wanted == {}
            assert [peer for peer, _ in one.left] == ["b"]

    run(main())


def test_keys_are_changed_without_a_gap() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            nodes = [await cluster.node(name, KEY) for name in "abc"]
            for node in nodes:
                node.dial(*(other for other in nodes if other is not node))
            await met(*nodes)
            for secrets in ((KEY, OTHER_KEY), (OTHER_KEY, KEY), (OTHER_KEY,)):
                for node in nodes:
                    node.transport.keys_changed(Keys(*secrets))
                    await met(*nodes)
            for node in nodes:
                assert {each.key_id for each in node.transport.sessions().values()} == {
                    Keys(OTHER_KEY).primary.id
                }
                assert node.refused() == {}
                # Only the removal of the old key ends sessions: each once, or twice if its other
                # end has not yet forgotten the key.
                assert len(node.left) <= 4

    run(main())


def test_a_node_without_a_common_key_stays_out_until_it_has_one() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a", KEY), await cluster.node("b", OTHER_KEY)
            one.dial(other)
            await until(lambda: other.refused() == {"unknown_key": 1}, "it is refused")
            other.transport.keys_changed(Keys(OTHER_KEY, KEY))
            await met(one, other)

    run(main())


def test_a_bug_in_the_dealing_with_a_frame_costs_the_session_only() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("a"), await cluster.node("b")
            other.transport._on_frame = lambda peer, _: int(peer)
            one.dial(other)
            await met(one, other)
            assert one.transport.send("b", b"frame")
            await until(lambda: one.left, "the session has ended")
            await met(one, other)

    run(main())


def test_an_address_in_use_is_told_in_words() -> None:
    async def main() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            node = Node("a")
            with pytest.raises(TransportError) as caught:
                await node.transport.listen(ListenAddress("127.0.0.1", port))
            assert f"127.0.0.1:{port}: Address already in use" in str(caught.value)
            assert "EDGEPROXY_REPLICATION_TRANSPORT_ADDR" in str(caught.value)

    run(main())


def test_nodes_meet_over_ipv6_and_one_that_listens_on_all_addresses_is_reached_by_both() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            one, other = await cluster.node("b"), await cluster.node("c")
            middle = Node("a")
            port = (await middle.transport.listen(ListenAddress("::", 0))).port
            one.transport.connect("a", f"127.0.0.1:{port}")
            other.transport.connect("a", f"[::1]:{port}")
            await until(lambda: middle.peers == {"b", "c"}, "both have come")
            await middle.close()

    run(main())


def test_the_constants_fit_each_other() -> None:
    assert 4 * (MIB + 4) <= 3 * session.WINDOW_BYTES
    assert session.WINDOW_BYTES <= session.QUEUE_BYTES
    assert 2 * session.DIALLED_PING_SECS < configuration.IDLE_SECS
    assert transport.DOUBT_SECS < session.JOIN_SECS
