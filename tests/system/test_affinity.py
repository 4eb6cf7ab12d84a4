"""A client stays with its backend, as long as that is right and no longer."""

from __future__ import annotations

import time

import pytest

from tests.conformance.peers import Peer
from tests.system.pop import Pop
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

CLIENT = "127.80.0.1"


def bound_to(pop: Pop, backend_id: str, source: str = CLIENT) -> None:
    """Bind the client to this backend, while other backends are disabled for a moment."""
    pop.proxy.edit(f"UPDATE backends SET healthy = 0 WHERE id <> '{backend_id}'")
    assert pop.reached(source) == backend_id
    pop.proxy.edit("UPDATE backends SET healthy = 1")


def make_unattractive(pop: Pop, backend_id: str) -> list[Peer]:
    """Load this backend, so that whoever is not bound to it goes elsewhere; return the load."""
    pop.proxy.edit(f"UPDATE backends SET healthy = 0 WHERE id <> '{backend_id}'")
    load = [pop.holder() for _ in range(2)]
    assert {name for _, name in load} == {backend_id}
    pop.proxy.edit("UPDATE backends SET healthy = 1")
    assert pop.reached() != backend_id
    return [client for client, _ in load]


def test_a_client_comes_back_to_its_backend_whatever_others_do(pop: Pop) -> None:
    for name in ("a", "b", "c"):
        pop.backend(name)
    pop.serve()
    home = pop.reached(CLIENT)

    for _ in range(7):
        assert pop.reached(CLIENT) == home
        pop.reached()


def test_two_connections_of_one_client_at_once_share_a_backend(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    pop.serve()

    assert len({pop.holder(CLIENT)[1] for _ in range(6)}) == 1


def test_each_use_renews_a_binding_and_it_ends_at_its_ttl(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    pop.serve(EDGEPROXY_BINDING_TTL_SECS="3")
    bound_to(pop, "a")
    make_unattractive(pop, "a")

    began = used = time.monotonic()
    while time.monotonic() - began < 4:  # longer than the TTL
        reached = pop.reached(CLIENT)
        if time.monotonic() - used > 2.5:  # this machine has paused: begin again
            bound_to(pop, "a")
            began = time.monotonic()
        else:
            assert reached == "a"
        used = time.monotonic()
        PAUSE.wait(0.5)

    wait_until(lambda: time.monotonic() - used > 3.1, "the end of the TTL")
    assert pop.reached(CLIENT) == "b", "3.1 s after its last use"


def test_a_ttl_of_zero_binds_nobody(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    pop.serve(EDGEPROXY_BINDING_TTL_SECS="0")

    assert {pop.reached(CLIENT) for _ in range(6)} == {"a", "b"}


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [
        ("UPDATE backends SET healthy = 0 WHERE id = 'a'", "UPDATE backends SET healthy = 1"),
        ("UPDATE backends SET deleted = 1 WHERE id = 'a'", "UPDATE backends SET deleted = 0"),
        (
            "CREATE TABLE kept AS SELECT * FROM backends; DELETE FROM backends WHERE id = 'a'",
            "INSERT OR IGNORE INTO backends SELECT * FROM kept",
        ),
    ],
    ids=["disabled", "soft_deleted", "deleted"],
)
def test_a_binding_is_dropped_when_its_backend(pop: Pop, leave: str, come_back: str) -> None:
    pop.backend("a")
    pop.backend("b")
    proxy = pop.serve()
    bound_to(pop, "a")

    proxy.edit(leave)
    assert pop.reached(CLIENT) == "b"

    proxy.edit(come_back)
    make_unattractive(pop, "b")
    assert pop.reached(CLIENT) == "b", "it stays with the backend that it was given instead"


def test_a_binding_is_dropped_when_its_backend_cannot_be_dialed(pop: Pop) -> None:
    home = pop.backend("a")
    pop.backend("b")
    pop.serve(EDGEPROXY_PASS_OVER_SECS="0.2")
    bound_to(pop, "a")

    home.stop()
    assert pop.reached(CLIENT) == "b"
    home.start()
    wait_until(lambda: pop.reached() == "a", "a backend that takes clients again")
    assert pop.reached(CLIENT) == "b"


def test_a_client_of_a_full_backend_goes_elsewhere_and_comes_back(pop: Pop) -> None:
    pop.backend("a", hard_limit=2)
    pop.backend("b")
    pop.serve()
    bound_to(pop, "a")
    load = make_unattractive(pop, "a")

    assert pop.reached(CLIENT) == "b"

    load[0].end()
    load[0].rest()
    assert pop.reached() == "b", "new clients still prefer the other one"
    assert pop.reached(CLIENT) == "a"


def test_a_binding_survives_reloads_that_leave_its_backend_alone(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    proxy = pop.serve()
    bound_to(pop, "a")
    make_unattractive(pop, "a")

    for weight in (2, 3, 4):
        proxy.edit(f"UPDATE backends SET weight = {weight} WHERE id = 'b'")
        assert pop.reached(CLIENT) == "a"
