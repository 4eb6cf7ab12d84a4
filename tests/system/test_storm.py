"""After any storm everything is as before it: no slot and no descriptor is held."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.peers import Peer, Stream
from tests.store.editing import execute
from tests.system.clients import connect, greeting
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

CLIENTS = 600
AT_ONCE = 40
HARD_LIMIT = 12
STREAM = Stream(1)

NODES = ("sa-1", "sa-2", "us-1", "eu-1")
RESTORE = "DELETE FROM backends; INSERT INTO backends SELECT * FROM kept"


def leave_at_once(client: Peer, _size: int) -> None:
    client.close()


def reset_at_once(client: Peer, _size: int) -> None:
    client.reset()


def half_close_at_once(client: Peer, _size: int) -> None:
    client.end()
    greeting(client)
    assert client.rest().data == b""


def reset_when_served(client: Peer, _size: int) -> None:
    greeting(client)
    client.reset()


def reset_in_the_middle(client: Peer, size: int) -> None:
    if greeting(client):
        client.send_stream(STREAM, size)
        client.reset()


def leave_in_the_middle(client: Peer, size: int) -> None:
    if greeting(client):
        client.send_stream(STREAM, size)
        client.close()


def half_close_and_hear_everything(client: Peer, size: int) -> None:
    if greeting(client):
        client.send_stream(STREAM, size)
        client.end()
        client.receive_stream(STREAM, size)
        assert client.rest() == (b"", False)


def stay_a_while(client: Peer, size: int) -> None:
    if greeting(client):
        PAUSE.wait(size / 1e6)
        client.close()


MANNERS: tuple[Callable[[Peer, int], None], ...] = (
    leave_at_once,
    reset_at_once,
    half_close_at_once,
    reset_when_served,
    reset_in_the_middle,
    leave_in_the_middle,
    half_close_and_hear_everything,
    stay_a_while,
)


def visit(address: tuple[str, int], seed: int) -> None:
    """Be one client; a seed repeats what it does."""
    dice = random.Random(seed)
    source = f"127.{dice.choice((10, 11, 20, 30, 40, 99))}.0.{dice.randint(1, 40)}"
    client = connect(address, source)
    try:
        dice.choice(MANNERS)(client, dice.randrange(100_000))
    finally:
        client.close()


def stir(pop: Pop, is_over: threading.Event) -> None:
    """Disable, weigh, remove and restore nodes until the storm is over."""
    dice = random.Random(0)
    while not is_over.is_set():
        node = dice.choice(NODES)
        change = dice.choice(
            (
                f"UPDATE backends SET healthy = 1 - healthy WHERE id = '{node}'",
                f"UPDATE backends SET deleted = 1 - deleted WHERE id = '{node}'",
                f"UPDATE backends SET weight = {dice.randint(0, 5)} WHERE id = '{node}'",
                f"DELETE FROM backends WHERE id = '{node}'",
                RESTORE,
                RESTORE,
                RESTORE,
            )
        )
        execute(pop.database, change)
        is_over.wait(0.02)


def test_after_a_storm_of_clients_and_edits_the_books_are_balanced(pop: Pop) -> None:
    backends = [pop.backend(name, name[:2], hard_limit=HARD_LIMIT) for name in NODES]
    execute(pop.database, "CREATE TABLE kept AS SELECT * FROM backends")
    proxy = pop.serve(EDGEPROXY_BINDING_TTL_SECS="0.2")
    proxy.edit("UPDATE backends SET weight = 2")  # it has everything open that it keeps open
    assert pop.reached() in NODES
    descriptors = proxy.descriptors()
    over = threading.Event()

    with ThreadPoolExecutor(AT_ONCE + 1) as background:
        stirring = background.submit(stir, pop, over)
        visits = [background.submit(visit, proxy.address, seed) for seed in range(CLIENTS)]
        try:
            for each in visits:
                each.result()
        finally:
            over.set()
            stirring.result()

    wait_until(lambda: not any(each.active for each in backends), "every backend left alone")
    assert all(each.most <= HARD_LIMIT for each in backends)
    assert sum(each.total for each in backends) > CLIENTS / 10
    wait_until(lambda: proxy.descriptors() <= descriptors, "descriptors given back")
    execute(pop.database, RESTORE)
    wait_until(lambda: pop.reached() in NODES, "service as usual")

    stopped = proxy.stop()
    assert (stopped["still_active"], stopped["cut"]) == ("0", "0")
    assert stopped["accepted"] == stopped["closed"]
    assert int(stopped["accepted"]) + int(stopped["refused"]) >= CLIENTS
