"""Stopping: nobody new, nobody cut, nothing lost, and an end that comes in time."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conformance.peers import CHUNK, Peer, Stream
from tests.system.clients import connect
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

TRANSFER = 20_000_000
BEFORE_THE_SIGNAL = 5_000_000
SESSIONS = 3


def finish(sender: Peer, stream: Stream) -> None:
    sender.send_stream(stream, TRANSFER - sender.sent)
    sender.end()


def read_all(receiver: Peer, stream: Stream) -> int:
    assert not receiver.rest_of_stream(stream), "reset"
    return receiver.received


def read_all_slowly(receiver: Peer, stream: Stream) -> int:
    while part := receiver.sock.recv(CHUNK):
        assert part == stream.slice(receiver.received, len(part))
        receiver.received += len(part)
        PAUSE.wait(0.002)
    return receiver.received


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_transfers_finish_and_no_byte_is_lost(pop: Pop, number: signal.Signals) -> None:
    manual = pop.manual_backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="60")
    up, down = Stream(1), Stream(2)
    ends = [(pop.client(), pop.keep(manual.accept())) for _ in range(SESSIONS)]
    with ThreadPoolExecutor(4 * SESSIONS) as background:
        received: list[Future[int]] = []
        started: list[Future[None]] = []
        for index, (client, backend) in enumerate(ends):
            read = read_all_slowly if index == 0 else read_all
            received.append(background.submit(read, client, down))
            received.append(background.submit(read_all, backend, up))
            started.append(background.submit(client.send_stream, up, BEFORE_THE_SIGNAL))
            started.append(background.submit(backend.send_stream, down, BEFORE_THE_SIGNAL))
        for each in started:
            each.result()

        proxy.send(number)
        draining = proxy.wait_for("draining")
        assert draining["connections"] == str(SESSIONS)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.address)

        for client, backend in ends:
            background.submit(finish, client, up)
            background.submit(finish, backend, down)
        assert [each.result() for each in received] == [TRANSFER] * SESSIONS * 2

    stopped = proxy.last_words()
    assert stopped["cut"] == "0"
    assert stopped["bytes_in"] == stopped["bytes_out"] == str(SESSIONS * TRANSFER)


def test_an_idle_proxy_ends_at_once(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="600")
    assert pop.reached() == "sa-1"

    stopped = proxy.stop()

    assert (stopped["accepted"], stopped["cut"]) == ("1", "0")


def test_a_signal_in_the_first_moment_is_followed(pop: Pop) -> None:
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="600")
    proxy.stop()


def test_the_rest_is_closed_when_the_shutdown_timeout_is_over(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="1")
    client, _ = pop.holder()

    started = time.monotonic()
    proxy.send(signal.SIGTERM)
    proxy.wait_for("draining", connections="1")
    client.send(b"still here")
    assert client.receive(10) == b"still here"
    stopped = proxy.last_words()

    assert time.monotonic() - started > 0.9
    assert stopped["cut"] == "1"
    assert client.rest().data == b""
    wait_until(lambda: backend.active == 0, "the backend is left alone")


def test_a_timeout_of_zero_waits_for_nobody(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="0")
    pop.holder()

    assert proxy.stop()["cut"] == "1"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(pop: Pop, second: signal.Signals) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="600")
    client, _ = pop.holder()
    proxy.send(signal.SIGTERM)
    proxy.wait_for("draining")

    stopped = proxy.stop(second)

    assert stopped["cut"] == "1"
    assert client.rest().data == b""


def test_a_client_whose_backend_is_still_being_dialed_is_waited_for(pop: Pop) -> None:
    pop.hung_backend("hung")
    backend = pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_CONNECT_TIMEOUT_SECS="1")
    client = pop.client()
    client.send(b"hello")

    proxy.send(signal.SIGTERM)
    proxy.wait_for("draining", connections="1")

    assert client.receive(10) == b"us-1\nhello"
    assert backend.total == 1
    client.end()
    assert client.rest() == (b"", False)
    assert proxy.last_words()["cut"] == "0"


def test_sighup_during_the_drain_changes_nothing(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve()
    client, _ = pop.holder()
    proxy.send(signal.SIGTERM)
    proxy.wait_for("draining")

    proxy.send(signal.SIGHUP)

    PAUSE.wait(0.3)
    client.send(b"still here")
    assert client.receive(10) == b"still here"
    client.close()
    assert proxy.last_words()["cut"] == "0"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2], ids=lambda n: n.name
)
def test_no_signal_that_comes_while_it_ends_ends_it_otherwise(
    pop: Pop, number: signal.Signals
) -> None:
    proxy = pop.serve()
    proxy.send(signal.SIGTERM)

    def has_ended() -> bool:
        proxy.send(number)
        return not proxy.is_running()

    while not has_ended():
        PAUSE.wait(0.001)
    proxy.last_words()
