"""Out of file descriptors nobody is turned away: accepting pauses and goes on."""

from __future__ import annotations

import os

import pytest

from tests.conformance.peers import Peer
from tests.store.editing import execute
from tests.system.backends import Backend
from tests.system.clients import greeting
from tests.system.pop import Pop, row
from tests.system.proxy import SERVE, RunningProxy
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

LIMIT = 120 + 4 * (os.cpu_count() or 1)
CLIENTS = LIMIT + 12
"""More than can be served at once with so few descriptors, two for each."""


def is_greeted(client: Peer) -> bool:
    return client.unread_bytes() > 0


def fill(pop: Pop) -> tuple[RunningProxy, list[Peer], list[Peer]]:
    """Connect CLIENTS clients; return the proxy, the clients that are served, the others."""
    pop.backend("sa-1", hard_limit=0)
    proxy = pop.serve_with(SERVE, max_descriptors=LIMIT)
    proxy.edit("UPDATE backends SET weight = 2")  # it has everything open that it keeps open
    clients = [pop.client() for _ in range(CLIENTS)]
    proxy.wait_for("accept_paused")
    wait_until(lambda: sum(map(is_greeted, clients)) >= LIMIT // 4, "some clients served")
    PAUSE.wait(0.5)
    served = [client for client in clients if is_greeted(client)]
    return proxy, served, [client for client in clients if client not in served]


def next_served(waiting: list[Peer]) -> tuple[list[Peer], list[Peer]]:
    """Wait until some of these are greeted, if there are any; return them and the others."""
    wait_until(lambda: not waiting or any(map(is_greeted, waiting)), "the next ones served")
    served = [client for client in waiting if is_greeted(client)]
    return served, [client for client in waiting if client not in served]


def test_those_who_find_no_descriptor_wait_and_are_served_as_others_leave(pop: Pop) -> None:
    proxy, served, waiting = fill(pop)
    assert len(waiting) >= CLIENTS - LIMIT // 2

    while served:
        for client in served:
            assert greeting(client) == "sa-1"
            client.send(b"still here")
            assert client.receive(10) == b"still here"
            client.end()
            assert client.rest() == (b"", False)
        served, waiting = next_served(waiting)

    wait_until(lambda: pop.reached() == "sa-1", "service as usual")
    stopped = proxy.stop()
    assert (stopped["refused"], stopped["failovers"]) == ("0", "0")
    assert int(stopped["accepted"]) > CLIENTS


def test_it_is_said_once_per_episode_that_accepting_pauses_and_once_that_it_goes_on(
    pop: Pop,
) -> None:
    proxy, served, waiting = fill(pop)
    PAUSE.wait(1.0)
    assert len(proxy.seen("accept_paused", level="warning")) == 1
    assert not proxy.seen("accept_resumed")

    for client in (*served, *waiting):
        client.close()

    proxy.wait_for("accept_resumed")
    wait_until(lambda: pop.reached() == "sa-1", "service as usual")
    assert len(proxy.seen("accept_paused")) == 1
    assert len(proxy.seen("accept_resumed")) == 1


def test_waiting_for_descriptors_costs_next_to_nothing(pop: Pop) -> None:
    proxy, _, _ = fill(pop)

    used = proxy.cpu_secs()
    PAUSE.wait(1.0)
    assert proxy.cpu_secs() - used < 0.4


def test_an_edit_of_the_database_that_could_not_be_read_is_followed_afterwards(pop: Pop) -> None:
    proxy, served, waiting = fill(pop)
    other = pop.keep(Backend("other"))
    other.start()
    execute(pop.database, "DELETE FROM backends;" + row(other))
    PAUSE.wait(0.5)
    assert proxy.is_running()

    for client in (*served, *waiting):
        client.close()

    wait_until(lambda: pop.reached() == "other", "the edit")


def test_a_rush_in_the_first_moment_is_survived_too(pop: Pop) -> None:
    pop.backend("sa-1", hard_limit=0)
    proxy = pop.serve_with(SERVE, max_descriptors=LIMIT)

    clients = [pop.client() for _ in range(CLIENTS)]
    proxy.wait_for("accept_paused")
    for client in clients:
        client.close()

    wait_until(lambda: pop.reached() == "sa-1", "service as usual")
    proxy.edit("UPDATE backends SET weight = 2")
