"""What is held about members, whatever is said in whatever order."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.records import Record, State
from edgeproxy.core.cluster.swim.roster import BELIEVED, Change, Roster
from edgeproxy.core.cluster.swim.tuning import (
    DEAD_KEPT_SECS,
    LEFT_KEPT_SECS,
    MAX_MEMBERS,
    Tuning,
)
from tests.core.cluster.swim.simulation import record_of

ALIVE, SUSPECT, DEAD, LEFT = State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT


def said(
    state: State, incarnation: int = 0, instance: int = 1, accuser: str = "", number: int = 1
) -> Record:
    record = record_of(number, instance).as_state(state, accuser)
    return msgspec.structs.replace(record, incarnation=incarnation)


def held(roster: Roster, number: int = 1) -> Record:
    return roster.members[f"node-{number}"].record


def roster_with(*records: Record) -> Roster:
    roster = Roster(Tuning())
    for record in records:
        roster.take(record, 0.0)
    return roster


RECORDS_OF_ONE = st.builds(
    said,
    st.sampled_from(State),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["", "a", "b"]),
    st.integers(1, 2),
)


@given(st.lists(st.tuples(RECORDS_OF_ONE, st.booleans(), st.floats(0, 30)), max_size=40))
@settings(max_examples=300)
def test_what_is_held_never_goes_back(
    heard: list[tuple[Record, bool, float]],
) -> None:
    roster, now = Roster(Tuning()), 0.0
    for record, is_listed, secs in heard:
        now += secs
        for suspect in roster.suspects_to_bury(now):
            roster.bury(suspect, "me", now)
        before = roster.members.get(record.node_id)
        was = before.record if before else None
        change = roster.take(record, now, is_listed=is_listed)
        after = roster.members[record.node_id]
        assert was is None or after.record.key >= was.key
        assert after.record.life >= record.life
        assert (after.suspicion is not None) == (after.state == SUSPECT)
        assert (change is None) == (was is not None and after.record == was)
        if was is not None and was.state == ALIVE:
            assert after.state != DEAD
        live = [each for each in roster.members.values() if each.is_live]
        assert roster.live() == live


@given(st.lists(RECORDS_OF_ONE, min_size=1, max_size=12), st.randoms())
@settings(max_examples=200)
def test_two_nodes_that_heard_the_same_hold_the_same_life(
    heard: list[Record], rng: random.Random
) -> None:
    other = list(heard)
    rng.shuffle(other)
    one, two = roster_with(*heard), roster_with(*other)
    lives = [
        {node_id: member.record.life for node_id, member in roster.members.items()}
        for roster in (one, two)
    ]
    assert lives[0] == lives[1]


def test_the_table_has_every_pair() -> None:
    assert set(BELIEVED) == {(one, other) for one in State for other in State}


def test_an_old_alive_does_not_raise_the_dead() -> None:
    roster = roster_with(said(DEAD, 1))
    assert roster.take(said(ALIVE, 1), 1.0) is None
    assert roster.take(said(ALIVE, 0), 1.0) is None
    assert held(roster).state == DEAD


def test_a_refutation_raises_the_dead() -> None:
    roster = roster_with(said(DEAD, 1))
    assert roster.take(said(ALIVE, 2), 1.0) == Change(said(DEAD, 1), said(ALIVE, 2))


@pytest.mark.parametrize("state", list(State))
def test_a_new_start_beats_every_state(state: State) -> None:
    roster = roster_with(said(state, 7))
    roster.take(said(ALIVE, 0, instance=2), 1.0)
    assert held(roster) == said(ALIVE, 0, instance=2)


def test_the_death_of_one_that_is_held_alive_is_a_suspicion_that_ends_soon() -> None:
    roster = roster_with(said(ALIVE), *(said(ALIVE, number=number) for number in range(2, 9)))
    roster.take(said(DEAD, accuser="a"), 10.0)
    assert held(roster).state == SUSPECT
    assert roster.suspects_to_bury(13.9) == []
    (member,) = roster.suspects_to_bury(14.1)
    assert roster.bury(member, "me", 14.1).after.state == DEAD


def test_the_death_of_a_suspect_is_believed() -> None:
    roster = roster_with(said(ALIVE), said(SUSPECT, accuser="a"))
    roster.take(said(DEAD, accuser="b"), 1.0)
    assert held(roster).state == DEAD


def test_a_list_buries_nobody() -> None:
    roster = roster_with(said(ALIVE))
    roster.take(said(DEAD, accuser="a"), 1.0, is_listed=True)
    assert held(roster).state == SUSPECT
    roster.take(said(DEAD, accuser="b"), 1.0, is_listed=True)
    assert held(roster).state == SUSPECT


def test_the_dead_that_were_not_known_are_remembered() -> None:
    roster = Roster(Tuning())
    assert roster.take(said(DEAD), 1.0, is_listed=True) == Change(None, said(DEAD))
    assert roster.size() == 1


def test_a_confirmation_is_news_once() -> None:
    roster = roster_with(*(said(ALIVE, number=number) for number in range(1, 9)))
    assert roster.take(said(SUSPECT, accuser="a"), 1.0)
    assert roster.take(said(SUSPECT, accuser="b"), 1.0)
    assert roster.take(said(SUSPECT, accuser="b"), 1.0) is None


def test_after_a_pause_suspects_get_their_whole_time_again() -> None:
    roster = roster_with(said(ALIVE), said(SUSPECT, accuser="a"))
    roster.give_time(100.0, None)
    assert roster.suspects_to_bury(107.9) == []
    assert roster.suspects_to_bury(108.1)


def test_after_a_hitch_suspects_get_as_much_more() -> None:
    roster = roster_with(said(ALIVE), said(SUSPECT, accuser="a"))
    roster.give_time(3.0, 1.0)
    assert roster.suspects_to_bury(8.9) == []
    assert roster.suspects_to_bury(9.1)


@pytest.mark.parametrize(("state", "kept_secs"), [(DEAD, DEAD_KEPT_SECS), (LEFT, LEFT_KEPT_SECS)])
def test_those_that_are_gone_are_forgotten_everywhere_at_the_same_time(
    state: State, kept_secs: int
) -> None:
    one = roster_with(said(ALIVE), said(SUSPECT, accuser="a"), said(state))
    half = kept_secs / 2
    other = Roster(Tuning())
    other.take(one.listed(one.members["node-1"], half), half, is_listed=True)
    late = one.listed(one.members["node-1"], kept_secs + 1.0)
    for roster in (one, other):
        roster.forget_old(kept_secs - 1.0)
        assert len(roster.members) == 1
        roster.forget_old(kept_secs + 2.0)
        assert len(roster.members) == 0
        assert roster.take(late, kept_secs + 2.0, is_listed=True) is None


def test_a_full_roster_refuses_new_members_but_not_for_the_sake_of_those_gone() -> None:
    roster = Roster(Tuning())
    for number in range(MAX_MEMBERS + 5):
        roster.take(said(ALIVE, number=number), 0.0)
    assert roster.size() == MAX_MEMBERS
    assert roster.refused == 6
    roster.take(said(LEFT, number=3), 1.0)
    assert roster.take(said(ALIVE, number=2000), 2.0)
    assert "node-3" not in roster.members


def test_a_new_start_shows_nothing_until_it_does() -> None:
    roster = roster_with(said(ALIVE))
    roster.members["node-1"].payload = b"x"
    roster.take(said(ALIVE, 1), 1.0)
    assert roster.members["node-1"].payload == b"x"
    roster.take(said(ALIVE, 0, instance=2), 1.0)
    assert roster.members["node-1"].payload == b""
