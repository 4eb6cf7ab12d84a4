"""Nobody but a node of the cluster says or learns anything, and no peer makes memory grow."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cluster.sessions.auth import Exchange, Identity, Outcome
from edgeproxy.cluster.sessions.quic.link import Link
from edgeproxy.cluster.sessions.session import QUEUE_BYTES, WINDOW_BYTES
from edgeproxy.wire import session as wire
from edgeproxy.wire.session import Kind
from tests.cluster.sessions.nodes import KEY, OTHER_KEY, Cluster, Keys, Node, Stranger, run, until

MIB = 1 << 20


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"secrets": (OTHER_KEY,)}, "unknown_key"),
        ({"cluster": "other"}, "other_cluster"),
        ({"versions": (2, 3)}, "no_common_version"),
        ({"name": "a"}, "own_node_id"),
    ],
)
def test_a_node_that_does_not_belong_to_the_cluster_is_refused(
    other: dict[str, Any], reason: str
) -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            how = {"name": "b", "secrets": (KEY,), **other}
            foreign = await cluster.node(how.pop("name"), *how.pop("secrets"), **how)
            foreign.transport.introduce(node.address)
            await until(lambda: reason in node.refused(), "it is refused")
            await until(lambda: not foreign.transport._open, "the end of the dial")
            assert node.refused() == {reason: 1}
            assert (node.joined, foreign.joined) == ([], [])

    run(main())


def test_another_node_than_expected_is_refused_by_the_one_that_dials() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            node.transport.connect("c", other.address)
            await until(lambda: node.refused().get("other_node"), "it is refused")
            assert (node.joined, other.joined) == ([], [])

    run(main())


def test_who_sits_in_the_middle_with_a_certificate_of_its_own_is_found_out() -> None:
    """The relay ends QUIC on both sides, and passes on every byte of the streams."""

    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            relay = cluster.stranger()
            passed: list[int] = []

            def pass_on(link: Link) -> None:
                onward = relay.endpoint.link()

                def forwards(data: bytes) -> None:
                    passed.append(len(data))
                    onward.write(data)

                link.uses = link.uses._replace(on_bytes=forwards)
                onward.uses = link.uses._replace(on_bytes=link.write, on_ready=lambda: None)
                onward.dial(other.at)

            relay.on_accept = pass_on
            host, port = relay.endpoint.address
            node.transport.introduce(f"{host}:{port}")
            await until(other.refused, "it is found out")
            assert other.refused() == {"wrong_proof": 1}
            assert sum(passed) > 100, "the proof has been passed on as it was"
            assert (node.joined, other.joined) == ([], [])

    run(main())


def test_the_same_relay_without_quic_of_its_own_is_only_a_router() -> None:
    """The test before would pass also if no relay ever worked."""

    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            loop = asyncio.get_running_loop()
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as router:
                router.bind(("127.0.0.1", 0))

                def route() -> None:
                    data, address = router.recvfrom(65535)
                    router.sendto(data, node.at if address == other.at else other.at)

                loop.add_reader(router, route)
                host, port = router.getsockname()
                node.transport.introduce(f"{host}:{port}")
                await until(lambda: node.peers and other.peers, "a session through the router")
                loop.remove_reader(router)

    run(main())


def test_a_stranger_that_says_nothing_is_sent_away_after_two_seconds_and_hears_nothing() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await stranger.connected(node)
            await until(lambda: stranger.ends, "it is sent away")
            assert stranger.ends == ["refused"]
            assert loop.time() - began > 1.9
            assert not stranger.heard
            assert node.refused() == {"late": 1}
            assert not node.transport._open

    run(main())


HELLO = wire.Hello(1, 1, b"c" * 16, "x", b"n" * 32)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff",
        wire.frame(Kind.DATA, b"frame")[:4],
        wire.frame(Kind.JOIN),
        wire.credit(1),
        wire.hello(HELLO) + wire.hello(HELLO),
        wire.hello(HELLO) + wire.auth(wire.Auth(b"kkkk", bytes(32))) + wire.frame(Kind.DATA, b"x"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_whatever_else_a_stranger_says_it_is_sent_away_and_hears_nothing(said: bytes) -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            link = await stranger.connected(node)
            link.write(said.ljust(4, b"\xff"))
            await until(lambda: stranger.ends, "it is sent away")
            assert not stranger.heard
            assert sum(node.refused().values()) == 1
            assert (node.joined, node.frames) == ([], [])

    run(main())


async def proved(stranger: Stranger, node: Node, name: str) -> Link:
    """Return a link on which the stranger has proved to be the node of that name."""
    link = await stranger.connected(node)
    me = Identity(name, "edge", Keys(KEY))
    exchange = Exchange(me, link.channel, bytes(32), dialled=True)
    link.write(exchange.opening())
    await until(lambda: len(stranger.heard) >= len(exchange.opening()), "an answer")
    outcome = None
    while not isinstance(outcome, Outcome):
        start = wire.frame_start(stranger.heard)
        assert start is not None
        outcome = exchange.receive(start.kind, bytes(stranger.heard[4 : start.size]))
        del stranger.heard[: start.size]
    link.trust()
    return link


@pytest.mark.parametrize(
    "break_it",
    [
        lambda link: link.write(b"\xff\xff\xff\xff"),
        lambda link: link.write(wire.frame(Kind.JOIN)),
        lambda link: link.write(wire.hello(HELLO)),
        lambda link: link.write(wire.credit(1)),
        lambda link: link.write(b"\x00\x20\x00\x00"),
    ],
)
def test_a_node_that_breaks_the_protocol_loses_its_session(
    break_it: Callable[[Link], None],
) -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            link = await proved(stranger, node, "b")
            await until(lambda: node.peers, "it is in")
            break_it(link)
            await until(lambda: node.left and stranger.ends, "it is out")
            assert node.refused() == {}, "it is no stranger"

    run(main())


def test_a_node_that_has_not_been_chosen_yet_cannot_send() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("b")
            stranger = cluster.stranger()
            link = await proved(stranger, node, "a")  # which has to choose
            assert not node.peers
            link.write(wire.frame(Kind.DATA, b"early"))
            await until(lambda: stranger.ends, "it is out")
            assert (node.joined, node.frames) == ([], [])

    run(main())


def test_a_node_that_ignores_the_credit_is_cut_off() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            stranger = cluster.stranger()
            link = await proved(stranger, node, "b")
            await until(lambda: node.peers, "it is in")
            (session,) = node.transport._open
            session._deal_soon = lambda: None  # type: ignore[method-assign]
            for _ in range(3):
                link.write(wire.frame(Kind.DATA, bytes(MIB)))
            await until(lambda: node.left, "it is out")
            assert node.left == [("b", "the peer sends more than it was allowed to")]

    run(main())


def test_frames_wait_at_both_ends_while_the_receiver_holds_them_and_come_afterwards() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node, other = await cluster.node("a"), await cluster.node("b")
            node.dial(other)
            await until(lambda: node.peers and other.peers, "a session")
            other.transport.hold("a", True)
            (session,) = other.transport._open
            accepted = 0
            while node.transport.send("b", bytes([accepted % 256]) * 50_000):
                accepted += 1
            await until(lambda: session._inflow.waiting_bytes > WINDOW_BYTES - 60_000, "a window")
            assert session._inflow.waiting_bytes <= WINDOW_BYTES
            assert (other.frames, node.transport.send("b", bytes(50_000))) == ([], False)
            other.transport.hold("a", False)
            await until(lambda: len(other.frames) == accepted, "all have come")
            assert [frame[0] for _, frame in other.frames] == [n % 256 for n in range(accepted)]
            assert node.transport.send("b", bytes(50_000))

    run(main())


STOPPED = """
import asyncio, sys
from tests.cluster.sessions.nodes import Cluster, until

async def main():
    async with Cluster() as cluster:
        node = await cluster.node("b")
        print(node.address, flush=True)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        expected = int(await reader.readline())
        await until(lambda: len(node.frames) == expected, "all frames")
        print(sum(len(frame) for _, frame in node.frames), flush=True)

asyncio.run(main())
"""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_peer_that_stops_reading_costs_no_more_than_its_queue_and_gets_it_all_later() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            peer = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                STOPPED,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert peer.stdin is not None
            assert peer.stdout is not None
            try:
                address = (await peer.stdout.readline()).decode().strip()
                node.transport.connect("b", address)
                await until(lambda: node.peers, "a session")
                peer.send_signal(signal.SIGSTOP)
                before = resident_bytes()
                frame, accepted, refused = bytes(64 << 10), 0, 0
                for _ in range(40):
                    for _ in range(40):
                        if node.transport.send("b", frame):
                            accepted += 1
                        else:
                            refused += 1
                    await asyncio.sleep(0.05)
                assert refused > 1000
                assert QUEUE_BYTES - len(frame) - 100 * 4 < accepted * len(frame) <= QUEUE_BYTES
                assert node.transport.sessions()["b"].waiting_bytes <= QUEUE_BYTES
                assert resident_bytes() - before < 2 * QUEUE_BYTES
                peer.send_signal(signal.SIGCONT)
                peer.stdin.write(f"{accepted}\n".encode())
                received = await asyncio.wait_for(peer.stdout.readline(), 60)
                assert int(received) == accepted * len(frame)
                assert not node.left, "the pause was shorter than the time-out"
            finally:
                peer.kill()
                await peer.wait()

    run(main())
