"""The warm pool: what it gives out, how many it makes, and when it lets go. Real sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.gate import warm_pool
from edgeproxy.gate.warm_pool import BEGUN_AT_ONCE, PoolSettings, WarmPool
from tests.conformance import peers
from tests.waiting import wait_until

SETTINGS = PoolSettings(enabled=True, max_per_backend=4)


class World:
    """A backend that listens, its candidate, and a pool; `active` slots of it are in use."""

    def __init__(self, settings: PoolSettings = SETTINGS, hard_limit: int = 0) -> None:
        self.listening = peers.Backend()
        self.accepted: list[peers.Peer] = []
        self.taken: list[socket.socket] = []
        host, port = self.listening.address
        backend = Backend("sa-1", "myapp", "sa", host, port, hard_limit=hard_limit)
        self.candidate = Candidate(backend, LiveState("sa-1"))
        self.metrics = Metrics()
        self.pool = WarmPool(settings, self.metrics)

    def take(self, now: float = 0.0) -> socket.socket | None:
        """Reserve a slot and take a connection, which is there already."""
        self.candidate.live.active += 1
        descriptor = self.pool.take(self.candidate, now)
        if descriptor < 0:
            return None
        self.taken.append(socket.socket(fileno=descriptor))
        return self.taken[-1]

    def tick(self, now: float = 0.0) -> None:
        """Let the pool do its housekeeping."""
        self.pool.tick({"sa-1": self.candidate}, now)

    def waiting(self) -> int:
        """Return how many wait."""
        return self.pool.waiting().get("sa-1", 0)

    def accept(self) -> peers.Peer:
        """Accept one."""
        self.accepted.append(self.listening.accept())
        return self.accepted[-1]

    def close(self) -> None:
        """Close everything."""
        self.pool.close()
        self.listening.close()
        for peer in self.accepted:
            peer.close()
        for tcp in self.taken:
            tcp.close()


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World()) as world:
        yield world


def test_the_first_client_finds_none_and_the_next_ones_do(world: World) -> None:
    assert world.take() is None
    assert world.waiting() == BEGUN_AT_ONCE
    assert world.take() is not None
    assert (world.metrics.pool_hits, world.metrics.pool_misses) == (1, 1)


def test_a_tick_fills_it_up_to_the_most_and_no_further(world: World) -> None:
    world.take()
    for _ in range(3):
        world.tick()
    assert world.waiting() == SETTINGS.max_per_backend
    for _ in range(SETTINGS.max_per_backend):
        world.accept()
    assert not world.listening.has_waiting(0.1)


def test_a_tick_begins_only_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pool, "BEGUN_IN_A_TICK", 1)
    world.take()
    world.tick()
    assert world.waiting() == BEGUN_AT_ONCE + 1
    world.tick()
    assert world.waiting() == BEGUN_AT_ONCE + 2


def test_each_is_given_to_one_client_and_the_oldest_first(world: World) -> None:
    world.take()
    world.tick()
    taken = [world.take() for _ in range(4)]
    ports = [each.getsockname()[1] for each in taken if each is not None]
    assert len(set(ports)) == 4
    assert ports[0] == world.accept().sock.getpeername()[1]


def test_what_was_given_out_is_never_taken_back(world: World) -> None:
    world.take()
    world.take()
    world.tick(1.0)
    world.candidate.live.active = 0
    world.tick(2.0)
    assert world.waiting() == SETTINGS.max_per_backend
    assert world.taken[0].fileno() >= 0


def test_one_with_first_words_of_the_backend_is_given_out_with_them(world: World) -> None:
    world.take()
    world.accept().send(b"hello")
    taken = world.take()
    assert taken is not None
    taken.settimeout(peers.DEADLINE_SECS)
    assert taken.recv(10) == b"hello"


@pytest.mark.parametrize("says", [b"", b"too late"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_one_that_the_backend_has_ended_is_not_given_out(
    world: World, how: str, says: bytes
) -> None:
    world.take()
    ended, alive = world.accept(), world.accept()
    ended.send(says)
    getattr(ended, how)()
    taken = world.take()
    assert taken is not None
    assert taken.getsockname() == alive.sock.getpeername()
    assert world.metrics.pool_dropped == 1


def test_a_backend_that_has_ended_them_gets_new_ones_at_the_next_tick(world: World) -> None:
    world.take()
    world.tick(1.0)
    waiting = [world.accept() for _ in range(SETTINGS.max_per_backend)]
    world.tick(2.0)
    for each in waiting:  # as a backend that restarts
        each.end()
    world.tick(3.0)
    assert world.waiting() == SETTINGS.max_per_backend
    assert world.metrics.pool_dropped == SETTINGS.max_per_backend


def test_a_backend_that_was_away_gets_new_ones_within_as_long_again(world: World) -> None:
    world.take()
    world.tick(1.0)
    waiting = [world.accept() for _ in range(SETTINGS.max_per_backend)]
    world.tick(2.0)
    port = world.listening.address[1]
    world.listening.close()
    for each in waiting:
        each.end()
    world.tick(3.0)  # these are refused, which the next tick finds
    world.tick(4.0)
    assert world.waiting() == 0
    world.listening = peers.Backend(port=port)
    world.tick(5.0)
    assert world.waiting() == SETTINGS.max_per_backend


def test_a_backend_that_ends_fresh_ones_at_once_is_left_alone_for_longer_and_longer(
    world: World,
) -> None:
    world.take()
    ended, begun_at = BEGUN_AT_ONCE, 0.0
    for rest_secs in (1.0, 2.0, 4.0, SETTINGS.connect_timeout_secs, SETTINGS.connect_timeout_secs):
        for _ in range(ended):
            world.accept().end()
        found_at = begun_at + 1.0
        world.tick(found_at)
        world.tick(found_at + rest_secs - 0.1)
        assert world.waiting() == 0
        begun_at = found_at + rest_secs
        world.tick(begun_at)
        assert world.waiting() == SETTINGS.max_per_backend
        ended = SETTINGS.max_per_backend
    for _ in range(ended):
        world.accept()
    world.tick(begun_at + 1.0)  # these live
    assert world.waiting() == SETTINGS.max_per_backend


def test_one_that_has_waited_too_long_is_replaced(world: World) -> None:
    world.take(0.0)
    world.tick(59.9)
    first = world.accept()
    world.tick(60.0)
    assert first.rest().data == b""
    assert world.waiting() == SETTINGS.max_per_backend
    assert world.metrics.pool_dropped == BEGUN_AT_ONCE


def test_a_backend_that_nobody_wants_any_more_gets_cold(world: World) -> None:
    world.take(0.0)
    world.tick(299.0)
    assert world.waiting() == SETTINGS.max_per_backend
    world.tick(300.0)
    assert world.pool.waiting() == {}


def test_slots_and_connections_that_wait_are_never_more_than_the_hard_limit() -> None:
    with closing(World(hard_limit=5)) as world:
        for active in range(1, 6):
            world.take()
            world.tick()
            assert world.candidate.live.active == active
            assert active + world.waiting() <= 5
        world.candidate.live.active = 2
        world.tick()
        assert world.waiting() == 3
        world.candidate.limit = 3
        world.tick()
        assert world.waiting() == 1


@pytest.mark.parametrize("why", ["draining", "passed over", "unhealthy", "circuit"])
def test_nothing_waits_for_a_backend_that_takes_nobody(world: World, why: str) -> None:
    world.take()
    live = world.candidate.live
    if why == "draining":
        live.draining = True
    elif why == "unhealthy":
        world.candidate.backend = replace(world.candidate.backend, healthy=False)
    else:
        live.passed_over_until = 100.0
        live.circuit = Circuit.OPEN if why == "circuit" else Circuit.CLOSED
    world.tick(1.0)
    assert world.pool.waiting() == {}


def test_none_is_begun_while_a_backend_is_on_trial(world: World) -> None:
    world.candidate.live.circuit = Circuit.HALF_OPEN
    world.take()
    world.tick(1.0)
    assert world.waiting() == 0


def test_none_is_begun_for_a_backend_that_gets_clients_though_it_is_down(world: World) -> None:
    world.candidate.live.down = True
    world.take()
    assert world.waiting() == 0


def test_a_backend_that_is_gone_or_has_moved_leaves_nothing_behind(world: World) -> None:
    world.take()
    old = world.accept()
    moved = peers.Backend()
    backend = Backend("sa-1", "myapp", "sa", *moved.address)
    world.candidate = Candidate(backend, world.candidate.live)
    assert world.take() is None
    assert old.rest().data == b""
    world.accepted.append(moved.accept())
    world.pool.tick({}, 1.0)
    assert world.pool.waiting() == {}
    moved.close()


def test_a_backend_that_refuses_is_tried_again_only_after_a_while(world: World) -> None:
    world.listening.close()
    world.take(0.0)
    world.tick(1.0)
    assert world.waiting() == 0
    world.tick(1.9)
    assert world.waiting() == 0


def test_a_ready_one_goes_before_one_that_is_under_way(world: World) -> None:
    world.listening.fall_silent()
    world.take()
    world.listening.relent()
    world.tick()
    ready = world.accept()
    taken = world.take()
    assert taken is not None
    assert taken.getsockname() == ready.sock.getpeername()


def test_one_that_should_have_come_about_is_not_given_out(world: World) -> None:
    world.listening.fall_silent()
    world.take(0.0)
    world.tick(0.0)
    assert world.take(0.9) is not None
    world.candidate.limit = world.candidate.live.active + world.waiting()
    assert world.take(1.0) is None
    assert world.candidate.live.active + world.waiting() <= world.candidate.limit


def test_one_that_does_not_come_about_in_time_is_dropped(world: World) -> None:
    world.listening.fall_silent()
    world.take(0.0)
    world.tick(4.9)
    assert world.waiting() == SETTINGS.max_per_backend
    world.tick(5.0)
    assert world.waiting() == SETTINGS.max_per_backend - BEGUN_AT_ONCE


def test_clients_come_first_where_descriptors_are_short(world: World) -> None:
    world.take()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = world.accept().sock.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        world.take()
        assert world.waiting() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_waits_stays_though_there_are_no_descriptors_for_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.take()
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    monkeypatch.setattr(warm_pool, "DESCRIPTOR_SHARE", 1.0)
    monkeypatch.setattr(warm_pool, "ceiling", lambda: lowest_free + 1)
    for now in (1.0, 2.0, 3.0):
        world.tick(now)
        assert world.waiting() == BEGUN_AT_ONCE + 1
    for _ in range(BEGUN_AT_ONCE + 1):
        world.accept()
    assert not world.listening.has_waiting()


def test_a_closed_pool_holds_nothing_and_makes_nothing(world: World) -> None:
    world.take()
    world.pool.close()
    ended = world.accept()
    wait_until(lambda: ended.rest().data == b"", "the backend sees the end")
    world.take()
    world.tick()
    assert world.waiting() == 0
