"""Every byte arrives, in order, in both directions, however the two sides behave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.peers import Peer, Stream
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

MEGABYTE = 1_000_000
UP, DOWN = Stream(1), Stream(2)


@pytest.fixture
def pair(pop: Pop) -> tuple[Peer, Peer]:
    """Return the two ends of a session: the client and its connection at the backend."""
    backend = pop.manual_backend("sa-1")
    pop.serve()
    return pop.client(), pop.keep(backend.accept())


def send_and_end(sender: Peer, stream: Stream, count: int) -> None:
    sender.send_stream(stream, count)
    sender.end()


def receive_to_the_end(receiver: Peer, stream: Stream) -> int:
    assert not receiver.rest_of_stream(stream), "reset"
    return receiver.received


def test_a_hundred_megabytes_each_way_at_once_arrive_unchanged(
    pop: Pop, pair: tuple[Peer, Peer]
) -> None:
    client, backend = pair
    count = 100 * MEGABYTE

    with ThreadPoolExecutor(4) as background:
        sent = [
            background.submit(send_and_end, client, UP, count),
            background.submit(send_and_end, backend, DOWN, count),
        ]
        at_backend = background.submit(receive_to_the_end, backend, UP)
        at_client = background.submit(receive_to_the_end, client, DOWN)
        assert (at_backend.result(), at_client.result()) == (count, count)
        for each in sent:
            each.result()

    stopped = pop.proxy.stop()
    assert (stopped["bytes_in"], stopped["bytes_out"]) == (str(count), str(count))


def test_a_client_that_has_said_everything_still_hears_the_answer(pair: tuple[Peer, Peer]) -> None:
    client, backend = pair

    send_and_end(client, UP, MEGABYTE)
    assert receive_to_the_end(backend, UP) == MEGABYTE
    with ThreadPoolExecutor(1) as background:
        sending = background.submit(send_and_end, backend, DOWN, 5 * MEGABYTE)
        assert receive_to_the_end(client, DOWN) == 5 * MEGABYTE
        sending.result()


def test_a_backend_that_has_said_everything_still_hears_the_client(
    pair: tuple[Peer, Peer],
) -> None:
    client, backend = pair

    send_and_end(backend, DOWN, MEGABYTE)
    assert receive_to_the_end(client, DOWN) == MEGABYTE
    with ThreadPoolExecutor(1) as background:
        sending = background.submit(send_and_end, client, UP, 5 * MEGABYTE)
        assert receive_to_the_end(backend, UP) == 5 * MEGABYTE
        sending.result()


def test_a_client_that_sends_and_leaves_at_once_has_said_it_all(pair: tuple[Peer, Peer]) -> None:
    client, backend = pair

    with ThreadPoolExecutor(1) as background:
        received = background.submit(receive_to_the_end, backend, UP)
        client.send_stream(UP, 5 * MEGABYTE)
        client.close()
        assert received.result() == 5 * MEGABYTE


def test_bytes_that_come_one_by_one_are_passed_on_one_by_one(pair: tuple[Peer, Peer]) -> None:
    client, backend = pair

    for byte in UP.slice(0, 500):
        client.send(bytes([byte]))
        assert backend.receive(1) == bytes([byte])
        backend.send(bytes([byte ^ 255]))
        assert client.receive(1) == bytes([byte ^ 255])


@pytest.mark.parametrize("leaver", ["client", "backend"])
def test_a_reset_arrives_as_a_reset(pair: tuple[Peer, Peer], leaver: str) -> None:
    client, backend = pair
    left, other = (client, backend) if leaver == "client" else (backend, client)
    client.send(b"hello")
    assert backend.receive(5) == b"hello"

    left.reset()

    with pytest.raises(ConnectionResetError):
        other.receive(1)


@pytest.mark.parametrize("reader", ["client", "backend"])
def test_who_does_not_read_is_waited_for_in_bounded_memory(pop: Pop, reader: str) -> None:
    manual = pop.manual_backend("sa-1")
    proxy = pop.serve()
    before = proxy.memory_bytes()
    sessions = []
    taken = 0
    for _ in range(4):
        client, backend = pop.client(), pop.keep(manual.accept())
        lazy, eager = (client, backend) if reader == "client" else (backend, client)
        taken += eager.send_until_blocked(UP)
        sessions.append((lazy, eager))

    assert taken > 4 * 64 * 1024
    assert proxy.memory_bytes() - before < 24 * MEGABYTE
    used = proxy.cpu_secs()
    PAUSE.wait(0.5)
    assert proxy.cpu_secs() - used < 0.2, "waiting costs next to nothing"

    for lazy, eager in sessions:
        eager.end()
        assert receive_to_the_end(lazy, UP) == eager.sent


def test_a_session_that_is_half_closed_costs_nothing_while_it_waits(
    pop: Pop, pair: tuple[Peer, Peer]
) -> None:
    client, backend = pair
    client.end()
    assert backend.rest() == (b"", False)

    used = pop.proxy.cpu_secs()
    PAUSE.wait(0.5)
    assert pop.proxy.cpu_secs() - used < 0.2

    send_and_end(backend, DOWN, MEGABYTE)
    assert receive_to_the_end(client, DOWN) == MEGABYTE


def test_an_idle_session_is_kept_unless_a_timeout_is_asked_for(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(EDGEPROXY_IDLE_TIMEOUT_SECS="0.5")
    idle, _ = pop.holder()
    busy, _ = pop.holder()

    for _ in range(10):
        busy.send(b"x")
        assert busy.receive(1) == b"x"
        PAUSE.wait(0.1)

    assert idle.rest().data == b""
    busy.send(b"x")
    assert busy.receive(1) == b"x"
    wait_until(lambda: pop.reached() == "sa-1", "service as usual")
