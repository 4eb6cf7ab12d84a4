"""Backends in slow start get the share of clients that they stand for, and no more."""

from __future__ import annotations

import pytest

from edgeproxy.core.lazy_heap import LazyHeap
from edgeproxy.core.routing.slow_start_turns import SlowStartTurns

Entry = tuple[float, float, int, object]

THEIRS: Entry = (0.0, 0.0, 1, "slow")
OTHER: Entry = (0.0, 0.0, 2, "other")


def stands(_entry: Entry) -> bool:
    return True


def slow_start(standing: int, *entries: Entry) -> SlowStartTurns[Entry]:
    """Return backends in slow start with these entries."""
    return SlowStartTurns[Entry](standing, 0.0, LazyHeap(entries, stands, len(entries)))


@pytest.mark.parametrize("standing", [100, 250, 500])
def test_of_a_thousand_clients_they_get_their_share(standing: int) -> None:
    slow, others = slow_start(standing, THEIRS), 1000 - standing
    theirs = 0
    for _ in range(1000):
        if slow.choose(OTHER, others, stands) is THEIRS:
            theirs += 1
            slow.take_turn(0.0, 1.0, others)
        else:
            slow.note_other(others)
    assert theirs == standing


def test_they_are_chosen_where_there_is_no_other() -> None:
    assert slow_start(1, THEIRS).choose(None, 1000, stands) is THEIRS
    assert slow_start(0).choose(None, 0, stands) is None


def test_a_less_loaded_other_goes_first_even_in_their_turn() -> None:
    loaded: Entry = (5.0, 0.0, 1, "slow")
    slow = slow_start(500, loaded)
    assert slow.choose(OTHER, 0, stands) is OTHER
    assert slow.choose((6.0, 0.0, 2, "other"), 0, stands) is loaded


def test_an_entry_that_cannot_be_chosen_is_dropped() -> None:
    stale: Entry = (0.0, 0.0, 0, "stale")
    slow = slow_start(500, stale, THEIRS)
    assert slow.choose(None, 500, lambda entry: entry is not stale) is THEIRS
    assert (slow.heap.front(), len(slow.heap)) == (THEIRS, 1)


def test_a_turn_follows_the_latest_one_that_was_taken() -> None:
    slow = slow_start(500)
    assert slow.take_turn(4.0, 0.5, 500) == 4.5
    assert slow.take_turn(1.0, 0.5, 500) == 4.5  # absence saves no turns


def test_their_turns_do_not_pile_up_while_others_are_chosen() -> None:
    slow, others = slow_start(500, THEIRS), 500
    for _ in range(100):
        slow.note_other(others)
    chosen = []
    for _ in range(4):
        entry = slow.choose(OTHER, others, stands)
        chosen.append(entry is THEIRS)
        if entry is THEIRS:
            slow.take_turn(0.0, 1.0, others)
        else:
            slow.note_other(others)
    assert chosen == [True, True, False, True]
