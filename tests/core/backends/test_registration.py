"""Who registers, falls silent and leaves: in turn, by a model, and who may end whose lease."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import (
    MAX_WITHHELD,
    REMOVED_AT_ONCE,
    WITHHELD_SECS,
    CrowdedError,
    Deregister,
    Edit,
    End,
    NotYoursError,
    OperatorsRowError,
    Outcome,
    Register,
    Remove,
    Row,
    apply_changes,
    removals,
)
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)
HERE, THERE = "here", "there"


LIVE: Mapping[str, int | None] = {HERE: None}
OPERATORS: Mapping[str, int | None] = {}


def row(backend: Backend = A, leases: Mapping[str, int | None] = LIVE) -> Row:
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    return Row({**values, COUNTRY: backend.country or ""}, leases)


def one(edit: Edit, found: Row | None, count: int = 1) -> tuple[Outcome, object]:
    rows = {} if found is None else {"a": found}
    (outcome,), changes = apply_changes([edit], rows, HERE, count)
    return outcome, changes.get("a", "nothing")


def test_one_that_is_new_gets_a_row_and_a_home() -> None:
    assert one(Register(A, 10), None) == (True, row())


def test_the_same_again_changes_nothing() -> None:
    assert one(Register(A, 10), row()) == (False, "nothing")


def test_one_that_registers_at_a_second_home_has_both() -> None:
    there: Mapping[str, int | None] = {THERE: None}
    assert one(Register(A, 10), row(leases=there)) == (False, row(leases={THERE: None, HERE: None}))


@pytest.mark.parametrize("ended", [{HERE: 5}, {THERE: 5}, {HERE: 5, THERE: 6}])
def test_one_that_is_withheld_and_registers_is_new_and_in_use(ended: dict[str, int | None]) -> None:
    kept = row(dataclasses.replace(A, healthy=False), ended)
    expected = row(dataclasses.replace(A, healthy=False), {**ended, HERE: None})
    assert kept.ended_at == max(filter(None, ended.values()))
    assert one(Register(A, 10), kept) == (True, expected)
    assert (expected.ended_at, expected.is_live) == (None, True)


def test_one_that_is_withheld_counts_for_the_limit_when_it_comes_back() -> None:
    outcome, changed = one(Register(A, 5), row(leases={HERE: 5}), count=5)
    assert isinstance(outcome, CrowdedError)
    assert changed == "nothing"


def test_what_operators_have_said_stays() -> None:
    withheld = dataclasses.replace(A, healthy=False, deleted=True)
    heavier = dataclasses.replace(A, weight=9)
    expected = dataclasses.replace(heavier, healthy=False, deleted=True)
    assert one(Register(heavier, 10), row(withheld)) == (False, row(expected))


def test_the_row_of_an_operator_is_nobody_elses() -> None:
    moved = dataclasses.replace(A, wg_ip="10.0.0.66")
    for found in (A, dataclasses.replace(A, deleted=True), dataclasses.replace(A, wg_ip="nowhere")):
        for edit in (Register(A, 10), Register(moved, 10), Register(A, 10, caller="10.0.0.1")):
            outcome, changed = one(edit, row(found, OPERATORS))
            assert isinstance(outcome, OperatorsRowError)
            assert changed == "nothing"


def test_who_is_there_may_register_again_however_many_there_are() -> None:
    assert one(Register(A, 1), row(), count=5) == (False, "nothing")
    outcome, changed = one(Register(A, 5), None, count=5)
    assert isinstance(outcome, CrowdedError)
    assert changed == "nothing"


def test_one_may_leave_anywhere_and_an_operators_node_does_not() -> None:
    assert one(Deregister("a"), row()) == (True, None)
    assert one(Deregister("a"), row(leases={THERE: None})) == (True, None)
    assert one(Deregister("a"), row(leases=OPERATORS)) == (False, "nothing")
    assert one(Deregister("a"), None) == (False, "nothing")


def test_who_leaves_takes_all_of_its_leases_along() -> None:
    assert one(Deregister("a"), row(leases={HERE: None, THERE: None})) == (True, None)
    assert one(Deregister("a"), row(leases={HERE: 5, THERE: None})) == (True, None)


def test_one_that_is_withheld_has_left_already() -> None:
    assert one(Deregister("a"), row(leases={HERE: 5})) == (False, "nothing")


def test_the_end_of_a_lease_is_written_into_it_and_into_no_other() -> None:
    assert one(End("a", 7), row()) == (True, row(leases={HERE: 7}))
    both: Mapping[str, int | None] = {HERE: None, THERE: None}
    assert one(End("a", 7), row(leases=both)) == (False, row(leases={HERE: 7, THERE: None}))
    last: Mapping[str, int | None] = {HERE: None, THERE: 5}
    assert one(End("a", 7), row(leases=last)) == (True, row(leases={HERE: 7, THERE: 5}))


@pytest.mark.parametrize("leases", [{HERE: 5}, {THERE: None}, {THERE: 5}, {}])
def test_a_lease_that_is_not_live_does_not_end(leases: dict[str, int | None]) -> None:
    assert one(End("a", 7), row(leases=leases)) == (False, "nothing")
    assert one(End("a", 7), None) == (False, "nothing")


def test_who_has_registered_meanwhile_is_not_silent() -> None:
    outcomes, changes = apply_changes([Register(A, 9), End("a", 7)], {"a": row()}, HERE, 1)
    assert (outcomes, changes) == ([False, False], {})


def test_who_registers_after_the_end_of_its_lease_has_one_again() -> None:
    outcomes, changes = apply_changes([End("a", 7), Register(A, 9)], {"a": row()}, HERE, 1)
    assert (outcomes, changes) == ([True, True], {})


def test_who_leaves_and_registers_again_keeps_no_other_lease() -> None:
    found = {"a": row(leases={THERE: None})}
    _, changes = apply_changes([Deregister("a"), Register(A, 9)], found, HERE, 1)
    assert changes == {"a": row()}


def test_a_row_is_deleted_only_if_nobody_has_shown_life_since() -> None:
    late = Remove("a", 7)
    assert one(late, row(leases={HERE: 7, THERE: 3})) == (True, None)
    assert one(late, row(leases={HERE: 8})) == (False, "nothing")
    assert one(late, row(leases={HERE: 7, THERE: None})) == (False, "nothing")
    assert one(late, row(leases=OPERATORS)) == (False, "nothing")
    assert one(late, None) == (False, "nothing")


def test_a_home_without_a_name_is_one_too() -> None:
    _, changes = apply_changes([Register(A, 9)], {}, "", 0)
    assert changes == {"a": row(leases={"": None})}
    outcomes, _ = apply_changes([End("a", 7)], {"a": row(leases={"": None})}, "", 1)
    assert outcomes == [True]


def test_rows_are_deleted_after_an_hour() -> None:
    now = 1_000_000
    ended = {"old": now - WITHHELD_SECS, "young": now - WITHHELD_SECS + 1, "late": now + 99}
    assert removals(ended, now) == [Remove("old", now - WITHHELD_SECS)]
    assert removals({}, now) == []


def test_of_too_many_the_oldest_are_deleted_sooner() -> None:
    ended = {f"b{number}": 1000 + number for number in range(MAX_WITHHELD + 3)}
    assert removals(ended, 1000) == [Remove(f"b{number}", 1000 + number) for number in range(3)]
    at_once = removals(dict.fromkeys(ended, 1), WITHHELD_SECS + 1)
    assert len(at_once) == REMOVED_AT_ONCE


def test_whoever_speaks_for_another_address_changes_nothing() -> None:
    own, other = "10.0.0.1", "10.0.0.2"
    moved = dataclasses.replace(A, wg_ip=other)
    assert one(Register(A, 9, own), row()) == (False, "nothing")
    assert one(Deregister("a", caller=own), row()) == (True, None)
    for edit in (Register(moved, 9, other), Deregister("a", caller=other)):
        for found in (row(), row(leases=OPERATORS), row(dataclasses.replace(A, deleted=True))):
            outcome, changed = one(edit, found)
            assert isinstance(outcome, NotYoursError)
            assert changed == "nothing"


def test_the_id_of_one_that_is_withheld_is_anybodys() -> None:
    other = dataclasses.replace(A, wg_ip="10.0.0.2")
    outcome, changed = one(Register(other, 9, "10.0.0.2"), row(leases={THERE: 5}))
    assert (outcome, changed) == (True, row(other, {THERE: 5, HERE: None}))


def test_a_row_of_nobody_is_anybodys() -> None:
    nowhere = row(dataclasses.replace(A, wg_ip="nowhere"))
    for found in (None, nowhere):
        assert not isinstance(one(Register(A, 9, "10.0.0.1"), found)[0], StoreError)
    mapped = row(dataclasses.replace(A, wg_ip="::ffff:10.0.0.1"))
    assert one(Deregister("a", caller="10.0.0.1"), mapped) == (True, None)


PUTS = st.builds(
    lambda name, port, most: Register(dataclasses.replace(A, id=name, port=port), most),
    st.sampled_from("abcd"),
    st.integers(80, 81),
    st.integers(1, 3),
)
NAMES = st.sampled_from("abcd")
OTHERS = st.one_of(
    PUTS,
    st.builds(Deregister, NAMES),
    st.builds(Remove, NAMES, st.integers(1, 9)),
)
ENDS = st.builds(End, NAMES, st.integers(1, 9))
EDITS = st.lists(OTHERS)
ANY_EDITS = st.lists(st.one_of(OTHERS, ENDS))
LEASES = st.dictionaries(st.sampled_from([HERE, THERE]), st.one_of(st.none(), st.integers(1, 9)))
FOUND = st.dictionaries(NAMES, st.builds(lambda leases: row(leases=leases), LEASES))


def live(rows: Mapping[str, Row]) -> int:
    return sum(each.is_live for each in rows.values())


def written(found: Mapping[str, Row], changes: Mapping[str, Row | None]) -> dict[str, Row]:
    return {name: each for name, each in {**found, **changes}.items() if each is not None}


@given(EDITS, FOUND)
def test_edits_together_are_edits_one_by_one(edits: list[Edit], found: dict[str, Row]) -> None:
    outcomes, changes = apply_changes(edits, found, HERE, live(found))
    now = dict(found)
    for edit, outcome in zip(edits, outcomes, strict=True):
        count = live(now)
        (alone,), changed = apply_changes([edit], now, HERE, count)
        assert (alone if isinstance(alone, bool) else type(alone)) == (
            outcome if isinstance(outcome, bool) else type(outcome)
        )
        now = written(now, changed)
        if isinstance(edit, Register) and alone is True:
            assert live(now) <= max(count, edit.most)
    assert written(found, changes) == now


@given(ANY_EDITS, FOUND)
def test_no_edit_at_another_home_changes_a_lease_of_this_one(
    edits: list[Edit], found: dict[str, Row]
) -> None:
    """Only a row that is deleted takes them along: because it was asked for, or long after."""
    gone: set[str] = set()
    rows = dict(found)
    for number, edit in enumerate(edits, start=1):
        _, changes = apply_changes(edits[:number], found, THERE, live(found))
        after = written(found, changes)
        gone |= rows.keys() - after.keys()
        if isinstance(edit, Remove) and edit.backend_id in rows.keys() - after.keys():
            assert not rows[edit.backend_id].is_live
        rows = after
        for name in found.keys() - gone:
            before, left = found[name].leases, rows[name].leases
            assert (HERE in left, left.get(HERE)) == (HERE in before, before.get(HERE))


@given(ANY_EDITS, FOUND)
def test_the_end_of_a_lease_takes_out_nobody_who_has_another(
    edits: list[Edit], found: dict[str, Row]
) -> None:
    ends = [edit for edit in edits if isinstance(edit, End)]
    _, changes = apply_changes(ends, found, THERE, live(found))
    after = written(found, changes)
    assert after.keys() == found.keys()
    for name, before in found.items():
        if HERE in before.leases and before.leases[HERE] is None:
            assert after[name].is_live
