"""A peer that vanishes ends its session; one that only does not read is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.conformance.peers import Peer, Stream
from tests.system import namespaces
from tests.system.backends import ManualBackend
from tests.system.clients import connect
from tests.system.namespaces import Host
from tests.system.pop import Pop
from tests.system.proxy import SERVE
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

USER_TIMEOUT_SECS = 2
NEAR, FAR = "192.0.2.1", "192.0.2.2"


class World(NamedTuple):
    """The host of the proxy, and another one at the other end of a cable."""

    near: Host
    far: Host

    def cut(self) -> None:
        self.far.ip("link", "set", "cable", "down")


@pytest.fixture
def world() -> Iterator[World]:
    namespaces.need_namespaces()
    with ExitStack() as stack:
        yield World(*namespaces.joined_hosts(stack, NEAR, FAR))


def serve(pop: Pop, near: Host) -> tuple[str, int]:
    """Start a proxy on the near host; return where both hosts reach it."""
    proxy = pop.serve_with(
        near.command(SERVE),
        EDGEPROXY_LISTEN_ADDR="0.0.0.0:0",
        EDGEPROXY_USER_TIMEOUT_SECS=str(USER_TIMEOUT_SECS),
    )
    return NEAR, proxy.address[1]


def assert_ends_within_the_user_timeout(witness: Peer) -> None:
    """Expect the end of the session at the peer that is still there."""
    started = time.monotonic()
    assert witness.rest().data == b""
    assert time.monotonic() - started > USER_TIMEOUT_SECS * 0.7


def exchange(one: Peer, other: Peer) -> None:
    one.send(b"hello")
    assert other.receive(5) == b"hello"
    other.send(b"world")
    assert one.receive(5) == b"world"


def test_a_client_that_vanishes_gives_its_slot_back_after_the_user_timeout(
    world: World, pop: Pop
) -> None:
    manual = pop.keep(world.near.run(lambda: ManualBackend("sa-1")))
    pop.register(manual, hard_limit=1)
    address = serve(pop, world.near)
    client = pop.keep(world.far.run(lambda: connect(address)))
    backend = pop.keep(manual.accept())
    exchange(client, backend)

    world.cut()
    backend.send(b"is anybody there")

    assert_ends_within_the_user_timeout(backend)
    clients: list[Peer] = []

    def is_served() -> bool:  # the slot is given back a moment after the connection has ended
        clients.append(pop.keep(world.near.run(lambda: connect(address))))
        return manual.has_waiting(0.5)

    wait_until(is_served, "the slot is free")
    exchange(clients[-1], pop.keep(manual.accept()))


def test_a_backend_that_vanishes_lets_its_client_go_after_the_user_timeout(
    world: World, pop: Pop
) -> None:
    manual = pop.keep(world.far.run(lambda: ManualBackend("sa-1", FAR)))
    pop.register(manual, hard_limit=1)
    address = serve(pop, world.near)
    client = pop.keep(world.near.run(lambda: connect(address)))
    backend = pop.keep(manual.accept())
    exchange(client, backend)

    world.cut()
    client.send(b"is anybody there")

    assert_ends_within_the_user_timeout(client)
    assert pop.proxy.stop()["cut"] == "0"


def test_who_reads_nothing_for_three_times_the_user_timeout_is_not_cut(pop: Pop) -> None:
    manual = pop.manual_backend("sa-1")
    pop.serve(EDGEPROXY_USER_TIMEOUT_SECS="1")
    stream = Stream(1)
    pairs = [(pop.client(), pop.keep(manual.accept())) for _ in range(2)]
    readers_and_writers = [pairs[0], pairs[1][::-1]]
    for _, writer in readers_and_writers:
        writer.send_until_blocked(stream)

    PAUSE.wait(3.0)

    for reader, writer in readers_and_writers:
        writer.end()
        assert not reader.rest_of_stream(stream), "reset"
        assert reader.received == writer.sent
