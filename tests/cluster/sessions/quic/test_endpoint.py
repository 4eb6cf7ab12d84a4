"""What comes from nowhere gets no answer and costs nothing."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing

from aioquic.quic.connection import QuicConnection

from edgeproxy.cluster.sessions.quic import configuration
from edgeproxy.cluster.sessions.quic.endpoint import RETRIES_PER_SEC
from edgeproxy.cluster.sessions.transport import MAX_STRANGERS, MAX_STRANGERS_OF_ADDRESS
from tests.cluster.sessions.nodes import DEADLINE_SECS, Cluster, Node, run, until

INITIALS = 4000
ADDRESSES = 20
HALF_HANDSHAKES_OF_ADDRESS = 20


def connections(node: Node) -> int:
    (endpoint,) = node.transport._endpoints.values()
    return len({id(link) for link in endpoint._links.values()})


def answers(udp: socket.socket) -> Iterator[bytes]:
    """Yield what has come."""
    while True:
        try:
            yield udp.recv(65535)
        except BlockingIOError:
            return


def opened(host: str = "127.0.0.1") -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    udp.bind((host, 0))
    udp.setblocking(False)
    return udp


async def barrier(cluster: Cluster, node: Node) -> None:
    """Return when everything sent before has been dealt with: a stranger has got an answer."""
    link = await cluster.stranger("127.0.0.9").connected(node)
    link.close()
    await until(lambda: not connections(node), "the stranger has gone")


def client() -> QuicConnection:
    settings, _ = configuration.of_connection(configuration.dialling())
    return QuicConnection(configuration=settings)


def first_datagram(quic: QuicConnection, node: Node) -> bytes:
    quic.connect(node.at, now=time.monotonic())
    ((datagram, _),) = quic.datagrams_to_send(now=time.monotonic())
    return datagram


def test_garbage_gets_no_answer() -> None:
    async def main() -> None:
        rng = random.Random(1)
        async with Cluster() as cluster:
            node = await cluster.node("a")
            with closing(opened()) as udp:
                initial = first_datagram(client(), node)
                for number in range(1500):
                    datagram = bytearray(rng.randbytes(rng.choice((0, 1, 7, 25, 1199, 1200, 1400))))
                    if number % 3 == 0:  # nearly an Initial, of another version or too short
                        datagram = bytearray(initial)
                        datagram[1:5] = rng.randbytes(4)
                    elif number % 3 == 1:
                        datagram = bytearray(initial[: rng.randrange(1200)])
                    udp.sendto(datagram, node.at)
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                await barrier(cluster, node)
                assert list(answers(udp)) == []
                assert connections(node) == 0
                assert node.refused() == {}

    run(main())


def test_a_stranger_whose_address_is_not_shown_to_be_its_own_costs_no_memory() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            with closing(opened()) as udp:
                loop = asyncio.get_running_loop()
                began = loop.time()
                sent = received = asked = 0
                firsts = [first_datagram(client(), node) for _ in range(20)]
                for number in range(INITIALS):
                    datagram = firsts[number % len(firsts)]
                    sent += len(datagram)
                    udp.sendto(datagram, node.at)
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                        assert connections(node) == 0
                        for answer in answers(udp):
                            asked, received = asked + 1, received + len(answer)
                await barrier(cluster, node)
                for answer in answers(udp):
                    asked, received = asked + 1, received + len(answer)
                assert 0 < received < sent / 5, "a Retry is much smaller than what asks for it"
                assert asked <= RETRIES_PER_SEC * (loop.time() - began + 2)

    run(main())


async def with_token(udp: socket.socket, quic: QuicConnection, node: Node) -> list[bytes]:
    """Return the datagrams that a client sends after it has been asked for its address."""
    udp.sendto(first_datagram(quic, node), node.at)
    sent: list[bytes] = []

    def is_asked() -> bool:
        for datagram in answers(udp):
            quic.receive_datagram(datagram, node.at, now=time.monotonic())
        sent.extend(each for each, _ in quic.datagrams_to_send(now=time.monotonic()))
        return bool(sent)

    async with asyncio.timeout(DEADLINE_SECS):
        while not is_asked():
            await asyncio.sleep(0)
    return sent


def test_half_handshakes_are_bounded_and_nodes_get_in_afterwards() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            most = 0
            for number in range(ADDRESSES):
                with closing(opened(f"127.0.1.{number + 1}")) as udp:
                    for _ in range(HALF_HANDSHAKES_OF_ADDRESS):
                        for datagram in await with_token(udp, client(), node):
                            udp.sendto(datagram, node.at)
                        await asyncio.sleep(0)
                        most = max(most, connections(node))
                if number == 0:
                    assert most <= MAX_STRANGERS_OF_ADDRESS
            assert MAX_STRANGERS_OF_ADDRESS < most <= MAX_STRANGERS
            assert node.refused()["no_place"] > ADDRESSES * HALF_HANDSHAKES_OF_ADDRESS / 2
            other = await cluster.node("b")
            other.dial(node)
            await until(lambda: node.peers, "a node gets in")

    run(main())


def test_a_token_is_good_for_the_address_it_was_sent_to_only() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            node = await cluster.node("a")
            with closing(opened()) as udp, closing(opened()) as other:
                for datagram in await with_token(udp, client(), node):
                    other.sendto(datagram, node.at)
                await barrier(cluster, node)
                assert list(answers(other)) == []

    run(main())
