"""A stranger can use QUIC in one way only, and have little reserved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aioquic.quic.connection import QuicConnection

from edgeproxy.cluster.sessions.quic.link import Link
from tests.cluster.sessions.nodes import Cluster, run, until


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
            link = await stranger.connected(node)
            if misuse.__code__.co_names[0] == "reset_stream":
                link._quic.send_stream_data(0, b"")
            misuse(link._quic)
            link.settle()
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
            link = await stranger.connected(node)
            sent = 0
            while not stranger.ends:
                link.ping()
                await asyncio.sleep(0.02)
                sent += 1
                assert sent < 60
            assert not node.transport._open

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

    def fail(link: Link) -> None:
        link.uses = link.uses._replace(on_bytes=lambda _: 1 / 0)  # type: ignore[arg-type]

    run(main())
