"""Candidates that are down are kept in order, for a panic."""

from __future__ import annotations

from edgeproxy.core.routing.down import Down
from edgeproxy.core.routing.ranking import Candidate
from tests.core.routing.test_passed_over import entry_of
from tests.core.routing.test_ranking import candidate


def down(*ids: str) -> tuple[Down, list[Candidate]]:
    """Return candidates whose probes say that they are down, by increasing load."""
    candidates = [candidate(backend_id, hard=2) for backend_id in ids]
    for one in candidates:
        one.live.down = True
    entries = [entry_of(one, float(number)) for number, one in enumerate(candidates)]
    return Down(entries, len(entries)), candidates


def chosen(of: Down, now: float = 0.0, *tried: str) -> str | None:
    """Return the id of the candidate to choose."""
    entry = of.best(now, tried)
    return entry[3].backend.id if entry else None


def test_the_least_loaded_comes_first_and_none_is_given_twice() -> None:
    found, _ = down("a", "b")
    assert chosen(found) == "a"
    assert chosen(found, 0.0, "a") == "b"
    assert chosen(found, 0.0, "a", "b") is None
    assert chosen(found) == "a"


def test_one_that_failed_lately_waits_aside() -> None:
    found, (first, _) = down("a", "b")
    first.live.passed_over_until = 5.0
    assert chosen(found, 1.0) == "b"
    last = found.passed_over.best(())
    assert last is not None
    assert last[3] is first
    assert chosen(found, 5.0) == "a"


def test_full_draining_and_lost_ones_are_left_out() -> None:
    found, (first, second, third, fourth) = down("a", "b", "c", "d")
    first.live.active = 2
    second.live.draining = True
    third.live.lease_expired = True
    assert chosen(found) == "d"
    first.live.active = 1
    found.push(entry_of(first, 9.0))
    assert chosen(found, 0.0, "d") == "a"
    fourth.entry = None
    assert chosen(found) == "a"


def test_a_cleared_one_has_none() -> None:
    found, _ = down("a")
    found.clear()
    assert chosen(found) is None
