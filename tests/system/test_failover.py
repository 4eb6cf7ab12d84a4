"""A backend that cannot be reached costs a client nothing but time."""

from __future__ import annotations

import time

import pytest

from tests.conformance.peers import Stream
from tests.system.clients import greeting, rush
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

CONNECT_TIMEOUT_SECS = 0.5


def test_a_client_of_a_backend_that_refuses_gets_the_next_one(pop: Pop) -> None:
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    proxy = pop.serve()

    assert pop.reached() == "us-1"
    proxy.wait_for("dial_failed", backend="dead", reason="refused")


def test_a_client_of_a_backend_that_does_not_answer_gets_the_next_one_after_the_timeout(
    pop: Pop,
) -> None:
    pop.hung_backend("hung")
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_CONNECT_TIMEOUT_SECS=str(CONNECT_TIMEOUT_SECS))

    started = time.monotonic()
    assert pop.reached() == "us-1"
    assert time.monotonic() - started >= CONNECT_TIMEOUT_SECS * 0.9
    proxy.wait_for("dial_failed", backend="hung", reason="timeout")


def test_what_the_client_said_meanwhile_reaches_the_next_backend_whole(pop: Pop) -> None:
    pop.hung_backend("hung")
    pop.backend("us-1", "us")
    pop.serve(EDGEPROXY_CONNECT_TIMEOUT_SECS=str(CONNECT_TIMEOUT_SECS))
    stream = Stream(1)

    client = pop.client()
    client.send(stream.slice(0, 100_000))
    client.end()

    assert greeting(client) == "us-1"
    client.receive_stream(stream, 100_000)
    assert client.rest() == (b"", False)


def test_the_failed_backend_is_passed_over_by_those_who_come_after(pop: Pop) -> None:
    pop.hung_backend("hung")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        EDGEPROXY_CONNECT_TIMEOUT_SECS=str(CONNECT_TIMEOUT_SECS), EDGEPROXY_PASS_OVER_SECS="60"
    )
    assert pop.reached() == "us-1"

    assert {pop.reached() for _ in range(20)} == {"us-1"}

    assert proxy.stop()["failovers"] == "1"


def test_the_failed_backend_comes_back_by_itself(pop: Pop) -> None:
    backend = pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    pop.serve(EDGEPROXY_PASS_OVER_SECS="0.2")
    assert pop.reached() == "us-1"

    backend.start()

    wait_until(lambda: pop.reached() == "sa-1", "the nearer backend")
    assert {pop.reached() for _ in range(5)} == {"sa-1"}


def test_after_its_pause_a_backend_that_is_still_dead_is_tried_by_one_client_at_a_time(
    pop: Pop,
) -> None:
    pop.hung_backend("hung")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        EDGEPROXY_CONNECT_TIMEOUT_SECS=str(CONNECT_TIMEOUT_SECS), EDGEPROXY_PASS_OVER_SECS="0.1"
    )
    assert pop.reached() == "us-1"
    PAUSE.wait(0.2)

    answers = rush(proxy.address, [pop.new_address() for _ in range(50)])

    assert answers == ["us-1"] * 50
    assert 2 <= int(proxy.stop()["failovers"]) <= 3


def test_the_attempts_of_one_client_are_bounded_and_the_next_one_gets_further(pop: Pop) -> None:
    for number in range(1, 5):
        pop.dead_backend(f"dead-{number}")
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_CONNECT_ATTEMPTS="3")

    assert pop.reached() == "", "three of four dead ones"
    assert pop.reached() == "us-1", "the fourth, and then the good one"
    proxy.wait_for("client_refused", reason="unreachable")
    assert proxy.stop()["failovers"] == "3"


def test_when_every_backend_is_dead_a_client_is_closed_without_a_byte(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    pop.hung_backend("us-1", "us")
    pop.serve(EDGEPROXY_CONNECT_TIMEOUT_SECS=str(CONNECT_TIMEOUT_SECS))

    for _ in range(3):
        assert pop.client().rest() == (b"", False)


def test_dead_backends_are_used_again_as_soon_as_one_is_alive_even_if_all_are_passed_over(
    pop: Pop,
) -> None:
    backend = pop.dead_backend("sa-1")
    pop.dead_backend("us-1", "us")
    pop.serve(EDGEPROXY_PASS_OVER_SECS="60")
    assert pop.reached() == ""

    backend.start()

    assert pop.reached() == "sa-1", "nobody is refused while somebody may answer"


def test_a_backend_that_resets_every_connection_harms_nobody_else(pop: Pop) -> None:
    resetting = pop.resetting_backend("resetting")
    pop.backend("good")
    proxy = pop.serve()
    fates = []

    for _ in range(20):
        try:
            client, name = pop.holder()
        except ConnectionResetError:  # it can come before `connect` has returned
            fates.append("reset")
        else:
            fates.append(name)
            client.close()

    assert resetting.total > 0
    assert "good" in fates
    assert set(fates) <= {"good", "reset"}, "a reset reaches its client or costs it nothing"
    assert proxy.stop()["accepted"] == "20"


def test_a_client_that_resets_while_its_backend_is_dialed_gives_the_slot_back(pop: Pop) -> None:
    pop.hung_backend("hung", hard_limit=1)
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_CONNECT_TIMEOUT_SECS="60")
    other = pop.new_address()

    client = pop.client()
    assert pop.reached(other) == "us-1", "the nearer backend is full: its only slot is dialing"
    client.reset()
    assert pop.reached(other) == "us-1", "it is bound, and served after the reset was"

    stopped = proxy.stop()  # one that is still dialed would have to be cut
    assert (stopped["accepted"], stopped["failovers"], stopped["cut"]) == ("3", "0", "0")
