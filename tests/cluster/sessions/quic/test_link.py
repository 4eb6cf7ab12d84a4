"""A stranger can use QUIC in one way only, and have little reserved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection

from edgeproxy.cluster.sessions.quic import link
from edgeproxy.cluster.sessions.quic.link import Link
from tests.cluster.sessions.nodes import Cluster, Node, run, until


@pytest.mark.parametrize(
    "misuse",
    [
        lambda quic: quic.send_stream_data(quic.get_next_available_stream_id() + 4, b"x"),
        lambda quic: quic.send_stream_data(
            quic.get_next_available_stream_id(is_unidirectional=True), b"x"
        ),
        lambda quic: quic.send_stream_data(0, b"x", end_stream=True),
        lambda quic: quic.reset_stream(quic.get_next_available_stream_id(), 1),
    ],
)
def test_who_uses_quic_in_another_way_is_sent_away(
    misuse: Callable[[QuicConnection], None],
) -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            linked = await stranger.connected(node)
            if misuse.__code__.co_names[0] == "reset_stream":
                linked._quic.send_stream_data(0, b"")
            misuse(linked._quic)
            linked.settle()
            await until(lambda: stranger.ends, "it is sent away", 1.5)
            assert not node.transport._open
            assert node.refused() == {"malformed": 1}

    run(main())


def test_a_stranger_cannot_go_on_for_long() -> None:
    """Each datagram could have memory reserved for bytes that never come."""

    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            linked = await stranger.connected(node)
            sent = 0
            while not stranger.ends:
                linked.ping()
                await asyncio.sleep(0.02)
                sent += 1
                assert sent < 60
            assert not node.transport._open

    run(main())


def test_a_node_may_send_much_at_once_and_a_stranger_may_not() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            await cluster.stranger().connected(node)
            (strange,) = node.transport._open
            assert allowed(strange.link) <= (16 << 10, 16 << 10)
            node.dial(other)
            await until(lambda: node.peers and other.peers, "a session")
            (session,) = other.transport._open
            assert allowed(session.link) == (link.TRUSTED_BYTES, link.TRUSTED_BYTES)

    def allowed(one: Link) -> tuple[int, int]:
        return one._quic._local_max_data.value, one._quic._local_max_stream_data_bidi_remote if (
            0 not in one._quic._streams
        ) else one._quic._streams[0].max_stream_data_local

    run(main())


def test_a_link_that_was_cut_is_probed_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back-off without a bound would hold up everything for seconds after the cut."""
    monkeypatch.setattr(link, "LONGEST_PROBE_SECS", 0.05)

    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            node.dial(other)
            await until(lambda: node.peers, "a session")
            (session,) = node.transport._open
            probes: list[bytes] = []
            cut = SimpleNamespace(send=lambda datagram, _: probes.append(datagram))
            monkeypatch.setattr(session.link, "_wire", cut)
            session.link.ping()
            await until(lambda: len(probes) > 20 or node.left, "it is probed")
            assert not node.left, "by then, it had been probed too seldom"
            monkeypatch.undo()

    run(main())


async def two(cluster: Cluster) -> tuple[Node, Node, Link]:
    """Return two nodes with a session, and the link of the first one."""
    node, other = await cluster.node("a"), await cluster.node("b")
    node.dial(other)
    await until(lambda: node.peers and other.peers, "a session")
    (session,) = node.transport._open
    return node, other, session.link


def test_news_arrives_although_the_first_datagrams_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a probe: the first of those comes after a round trip at least."""
    monkeypatch.setattr(link, "REPEATS_SECS", (0.01, 0.02))

    async def main() -> None:
        async with Cluster() as cluster:
            node, other, joined = await two(cluster)
            monkeypatch.setattr(joined, "_wake", lambda: None)
            await until(lambda: not joined._repeats, "nothing is to go again")
            wire = joined._wire
            lost: list[bytes] = []

            def send(datagram: bytes, address: Any) -> None:
                if len(lost) < len(link.REPEATS_SECS):
                    lost.append(datagram)
                else:
                    wire.send(datagram, address)

            monkeypatch.setattr(joined, "_wire", SimpleNamespace(send=send))
            assert node.transport.send("b", b"news")
            await until(lambda: other.frames, "the news")
            monkeypatch.undo()
            await until(lambda: not joined._repeats, "nothing is to go again")
            assert [frame for _, frame in other.frames] == [b"news"]
            assert lost[0] == lost[1]

    run(main())


def test_many_at_once_do_not_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REPEATS_SECS", (10.0,))

    async def main() -> None:
        async with Cluster() as cluster:
            node, other, joined = await two(cluster)
            before = joined._repeats
            assert node.transport.send("b", bytes(100_000))
            await until(lambda: other.frames, "the frame")
            assert joined._repeats == before
            for number in range(link.MAX_REPEATS * 2):
                assert node.transport.send("b", b"%d" % number)
                await until(lambda: len(other.frames) == number + 2, "the next one")  # noqa: B023
            assert joined._repeats <= link.MAX_REPEATS

    run(main())


def test_a_bug_costs_one_connection() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            third = await cluster.node("c")
            node.dial(other, third)
            await until(lambda: len(node.peers) == 2, "sessions")
            (faulty,) = other.transport._open
            fail(faulty.link)
            assert node.transport.send("b", b"frame")
            await until(lambda: other.left, "the session has ended")
            assert not third.left

    def fail(faulty: Link) -> None:
        faulty.uses = faulty.uses._replace(on_bytes=lambda _: 1 / 0)  # type: ignore[arg-type]

    run(main())
