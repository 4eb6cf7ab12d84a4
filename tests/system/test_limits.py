"""A backend never has more connections than its hard limit, whatever the rush."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.engines import ENGINES
from tests.system.backends import ServingBackend
from tests.system.clients import connect, greeting, rush
from tests.system.pop import Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system

RUSH = 1000
LIMIT = 3
AT_ONCE = 16
VISITS = 300

MANY_ADDRESSES = [f"127.70.{number // 250}.{number % 250 + 1}" for number in range(RUSH)]
ONE_ADDRESS = ["127.70.0.1"] * RUSH


@pytest.fixture(params=[MANY_ADDRESSES, ONE_ADDRESS], ids=["many_addresses", "one_address"])
def sources(request: pytest.FixtureRequest) -> list[str]:
    addresses: list[str] = request.param
    return addresses


def test_a_thousand_clients_that_stay_get_exactly_the_hard_limit(
    pop: Pop, sources: list[str]
) -> None:
    backend = pop.backend("sa-1", hard_limit=LIMIT)
    proxy = pop.serve()

    answers = rush(proxy.address, sources)

    assert sorted(answers) == [""] * (RUSH - LIMIT) + ["sa-1"] * LIMIT
    assert (backend.most, backend.total) == (LIMIT, LIMIT)
    stopped = proxy.stop()
    assert (stopped["accepted"], stopped["refused"]) == (str(LIMIT), str(RUSH - LIMIT))


def test_clients_that_come_and_go_never_exceed_the_hard_limit(pop: Pop, sources: list[str]) -> None:
    backend = pop.backend("sa-1", hard_limit=LIMIT)
    proxy = pop.serve()

    def visit_again_and_again(source: str) -> int:
        """Reset each connection as soon as it is answered; return how many were served."""
        served = 0
        for _ in range(VISITS):
            client = connect(proxy.address, source)
            if greeting(client):
                served += 1
                client.reset()
            else:
                client.close()
        return served

    with ThreadPoolExecutor(AT_ONCE) as background:
        served = sum(background.map(visit_again_and_again, sources[:AT_ONCE]))

    assert backend.most <= LIMIT
    stopped = proxy.stop()
    assert int(stopped["accepted"]) == served
    assert int(stopped["refused"]) == AT_ONCE * VISITS - served


def test_a_bound_client_is_no_exception_to_the_hard_limit(pop: Pop) -> None:
    backend = pop.backend("sa-1", hard_limit=LIMIT)
    pop.serve()

    assert [pop.holder("127.70.0.1")[1] for _ in range(LIMIT)] == ["sa-1"] * LIMIT
    assert pop.reached("127.70.0.1") == ""
    assert (backend.most, backend.total) == (LIMIT, LIMIT)


def test_slots_are_free_again_when_their_clients_have_left_in_any_way(pop: Pop) -> None:
    backend = pop.backend("sa-1", hard_limit=LIMIT)
    pop.serve()

    for _ in range(3):
        clients = [pop.holder()[0] for _ in range(LIMIT)]
        assert pop.reached() == ""
        clients[0].close()
        clients[1].reset()
        clients[2].end()
        assert clients[2].rest() == (b"", False)
        wait_until(lambda: backend.active == 0, "the backend is left alone")
    assert backend.most == LIMIT


def test_slots_of_a_backend_that_dies_are_free_again(pop: Pop) -> None:
    backend = pop.backend("sa-1", hard_limit=1)
    pop.serve(EDGEPROXY_PASS_OVER_SECS="0")

    for _ in range(3):
        client, _ = pop.holder()
        backend.stop()
        assert client.rest().data == b""
        client.close()
        backend.start()
        wait_until(lambda: pop.reached() == "sa-1", "a free slot")
    assert backend.most == 1


def test_the_hard_limit_holds_while_the_table_is_reloaded_again_and_again(pop: Pop) -> None:
    backend = pop.backend("sa-1", hard_limit=1)
    proxy = pop.serve()
    pop.holder()

    for weight in (2, 3, 4, 5):
        proxy.edit(f"UPDATE backends SET weight = {weight}")
        assert pop.reached() == ""
    proxy.edit("UPDATE backends SET hard_limit = 2")
    assert pop.holder()[1] == "sa-1"
    assert pop.reached() == ""
    assert backend.most == 2


def test_a_lowered_limit_cuts_nobody_and_lets_nobody_in(pop: Pop) -> None:
    pop.backend("sa-1", hard_limit=3)
    proxy = pop.serve()
    clients = [pop.holder()[0] for _ in range(3)]

    proxy.edit("UPDATE backends SET hard_limit = 2")

    for client in clients:
        client.send(b"still here")
        assert client.receive(10) == b"still here"
    clients[0].close()
    wait_until(lambda: pop.reached() == "", "two of two slots taken")
    clients[1].close()
    wait_until(lambda: pop.reached() == "sa-1", "room for one")


def test_a_hard_limit_of_zero_is_no_limit(pop: Pop) -> None:
    backend = pop.backend("sa-1", soft_limit=0, hard_limit=0)
    proxy = pop.serve()

    answers = rush(proxy.address, MANY_ADDRESSES[:300])

    assert answers == ["sa-1"] * 300
    assert backend.most == 300


def test_above_the_soft_limit_other_nodes_are_preferred(pop: Pop) -> None:
    pop.backend("small", soft_limit=1)
    pop.backend("large", soft_limit=10)
    pop.serve()

    held = [pop.holder()[1] for _ in range(11)]

    assert held.count("large") == 10
    assert held.count("small") == 1


def _hello_and_end(client: socket.socket) -> None:
    client.recv(5)
    client.sendall(b"hello\n")


def _hello_until_the_end(client: socket.socket) -> None:
    _hello_and_end(client)
    while client.recv(5):
        pass


@pytest.mark.parametrize("kind", [kind for kind, _ in ENGINES])
@pytest.mark.parametrize("serve", [_hello_and_end, _hello_until_the_end])
@pytest.mark.parametrize(
    ("hard_limit", "most_per_client"), [(1, 0), (0, 1)], ids=["hard_limit", "per_client"]
)
def test_a_client_that_is_back_at_once_finds_the_slot_of_its_last_connection(
    pop: Pop,
    kind: str,
    serve: Callable[[socket.socket], None],
    hard_limit: int,
    most_per_client: int,
) -> None:
    backend = pop.keep(ServingBackend("sa-1", serve))
    pop.register(backend, hard_limit=hard_limit)
    proxy = pop.serve(EDGEPROXY_ENGINE=kind, EDGEPROXY_MAX_CONNS_PER_CLIENT=str(most_per_client))

    served = 0
    for _ in range(VISITS):
        client = connect(proxy.address)
        client.send(b"hello")
        served += greeting(client) == "hello"
        if serve is _hello_and_end:
            assert client.rest().data == b""
        client.close()

    assert served == VISITS
    assert proxy.stop()["refused"] == "0"
