"""A published table waits until it is adopted; what changed meanwhile counts in it."""

from __future__ import annotations

from dataclasses import replace

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveState, LiveStates
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.publication import Publication
from edgeproxy.core.routing.table import ALL_APPS, RoutingTable

A = Backend("a", "myapp", "sa", "10.0.0.1", 80)
B = Backend("b", "myapp", "sa", "10.0.0.2", 80)
SCOPES = (ALL_APPS,)


class Pop:
    """A publication, the live states it uses, and the ids of backends that moved."""

    def __init__(self) -> None:
        self.lives = LiveStates()
        self.moved: list[str] = []
        self.publication = Publication(self.lives, "sa", self._note)

    def _note(self, live: LiveState) -> None:
        self.moved.append(live.backend_id)

    def publish(self, *backends: Backend) -> RoutingTable:
        return self.publication.publish(backends, SCOPES)

    def put_in_force(self, *backends: Backend) -> RoutingTable:
        table = self.publish(*backends)
        self.publication.adopt()
        return table

    def best(self) -> str:
        """Return the id of the backend that the table in force offers first."""
        (tier,) = self.publication.table.tiers(ALL_APPS, Origin("", None, "sa"))
        entry = tier.rankings[0].best(0.0, ())
        assert entry is not None
        return entry[3].backend.id


def test_a_table_is_in_force_when_it_is_adopted() -> None:
    pop = Pop()
    first = pop.publication.table
    second = pop.publish(A)
    assert pop.publication.table is first
    pop.publication.adopt()
    assert pop.publication.table is second
    assert (first.version, second.version) == (0, 1)
    pop.publication.adopt()  # none waits
    assert pop.publication.table is second


def test_the_latest_of_several_tables_comes_into_force() -> None:
    pop = Pop()
    pop.publish(A)
    latest = pop.publish(A, B)
    pop.publication.adopt()
    assert pop.publication.table is latest
    assert latest.version == 2
    assert not pop.publication.waiting


def test_a_replaced_table_is_taken_apart_by_the_next_publication_and_not_before() -> None:
    pop = Pop()
    first = pop.put_in_force(A)
    skipped = pop.publish(A)
    pop.publish(A)
    assert first.candidates
    pop.publication.adopt()
    assert first.candidates
    assert skipped.candidates
    in_force = pop.publication.table
    pop.publish(A)
    assert not first.candidates
    assert not skipped.candidates
    assert in_force.candidates


def test_a_backend_with_another_address_has_moved_once() -> None:
    pop = Pop()
    pop.put_in_force(A, B)
    assert pop.moved == []
    elsewhere = replace(A, wg_ip="10.0.0.9")
    pop.publish(elsewhere, B)
    assert pop.moved == []
    pop.publication.adopt()
    assert pop.moved == ["a"]
    assert pop.lives.of("a").address == elsewhere.address
    pop.put_in_force(elsewhere, B)
    assert pop.moved == ["a"]


def test_a_backend_whose_load_changed_during_a_build_is_ranked_by_it() -> None:
    pop = Pop()
    pop.put_in_force(A, B)
    assert pop.best() == "a"
    pop.publish(A, B)
    live = pop.lives.of("a")
    live.active = 5
    pop.lives.touch(live)
    pop.publication.adopt()
    assert pop.best() == "b"


def test_no_change_is_noted_while_no_table_waits() -> None:
    pop = Pop()
    pop.put_in_force(A)
    pop.lives.touch(pop.lives.of("a"))
    assert pop.lives.touched == set()


def test_the_state_of_a_removed_backend_is_kept_as_long_as_a_table_or_a_client_uses_it() -> None:
    pop = Pop()
    pop.put_in_force(A, B)
    pop.lives.of("a").active = 1
    pop.put_in_force()  # the table that this one replaces still uses both
    assert pop.lives.known("b") is not None
    pop.put_in_force()
    assert pop.lives.known("b") is None
    assert pop.lives.known("a") is not None
    pop.lives.of("a").active = 0
    pop.put_in_force()
    assert pop.lives.known("a") is None
