"""Who registers and leaves: in turn, by a model, and whose silence counts."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import (
    CrowdedError,
    Deregister,
    Edit,
    NotYoursError,
    OperatorsRowError,
    Outcome,
    Register,
    Row,
    apply_changes,
)
from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.errors import StoreError

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)
HERE, THERE = "here", "there"


def row(backend: Backend = A, home: str | None = HERE) -> Row:
    values: dict[str, object] = {name: getattr(backend, name) for name in COLUMNS}
    return Row({**values, COUNTRY: backend.country or ""}, home)


def one(edit: Edit, found: Row | None, count: int = 1) -> tuple[Outcome, object]:
    rows = {} if found is None else {"a": found}
    (outcome,), changes = apply_changes([edit], rows, HERE, count)
    return outcome, changes.get("a", "nothing")


def test_one_that_is_new_gets_a_row_and_a_home() -> None:
    assert one(Register(A, 10), None) == (True, row())


def test_the_same_again_changes_nothing() -> None:
    assert one(Register(A, 10), row()) == (False, "nothing")


def test_one_that_registers_elsewhere_moves() -> None:
    assert one(Register(A, 10), row(home=THERE)) == (False, row())


def test_what_operators_have_said_stays() -> None:
    withheld = dataclasses.replace(A, healthy=False, deleted=True)
    heavier = dataclasses.replace(A, weight=9)
    expected = dataclasses.replace(heavier, healthy=False, deleted=True)
    assert one(Register(heavier, 10), row(withheld)) == (False, row(expected))


def test_the_row_of_an_operator_is_nobody_elses() -> None:
    moved = dataclasses.replace(A, wg_ip="10.0.0.66")
    for found in (A, dataclasses.replace(A, deleted=True), dataclasses.replace(A, wg_ip="nowhere")):
        for edit in (Register(A, 10), Register(moved, 10), Register(A, 10, caller="10.0.0.1")):
            outcome, changed = one(edit, row(found, home=None))
            assert isinstance(outcome, OperatorsRowError)
            assert changed == "nothing"


def test_who_is_there_may_register_again_however_many_there_are() -> None:
    assert one(Register(A, 1), row(), count=5) == (False, "nothing")
    outcome, changed = one(Register(A, 5), None, count=5)
    assert isinstance(outcome, CrowdedError)
    assert changed == "nothing"


def test_one_may_leave_anywhere_and_an_operators_node_does_not() -> None:
    assert one(Deregister("a"), row()) == (True, None)
    assert one(Deregister("a"), row(home=THERE)) == (True, None)
    assert one(Deregister("a"), row(home=None)) == (False, "nothing")
    assert one(Deregister("a"), None) == (False, "nothing")


def test_only_its_home_takes_a_silent_one_out() -> None:
    silent = Deregister("a", is_expired=True)
    assert one(silent, row()) == (True, None)
    assert one(silent, row(home=THERE)) == (False, "nothing")
    assert one(silent, row(home=None)) == (False, "nothing")
    assert one(silent, None) == (False, "nothing")


def test_who_has_registered_meanwhile_is_not_silent() -> None:
    outcomes, changes = apply_changes(
        [Register(A, 9), Deregister("a", is_expired=True)], {"a": row()}, HERE, 1
    )
    assert (outcomes, changes) == ([False, False], {})


def test_a_home_without_a_name_is_one_too() -> None:
    _, changes = apply_changes([Register(A, 9)], {}, "", 0)
    assert apply_changes([Deregister("a", is_expired=True)], {"a": row(home="")}, "", 1)[0] == [
        True
    ]
    assert changes == {"a": row(home="")}


def test_whoever_speaks_for_another_address_changes_nothing() -> None:
    own, other = "10.0.0.1", "10.0.0.2"
    moved = dataclasses.replace(A, wg_ip=other)
    assert one(Register(A, 9, own), row()) == (False, "nothing")
    assert one(Deregister("a", caller=own), row()) == (True, None)
    for edit in (Register(moved, 9, other), Deregister("a", caller=other)):
        for found in (row(), row(home=None), row(dataclasses.replace(A, deleted=True))):
            outcome, changed = one(edit, found)
            assert isinstance(outcome, NotYoursError)
            assert changed == "nothing"


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
EDITS = st.lists(st.one_of(PUTS, st.builds(Deregister, st.sampled_from("abcd"))))
FOUND = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([row(), row(home=THERE), row(home=None)])
)


@given(EDITS, FOUND)
def test_edits_together_are_edits_one_by_one(edits: list[Edit], found: dict[str, Row]) -> None:
    count = sum(each.home is not None for each in found.values())
    outcomes, changes = apply_changes(edits, found, HERE, count)
    now = dict(found)
    for edit, outcome in zip(edits, outcomes, strict=True):
        count = sum(each.home is not None for each in now.values())
        (alone,), changed = apply_changes([edit], now, HERE, count)
        assert (alone if isinstance(alone, bool) else type(alone)) == (
            outcome if isinstance(outcome, bool) else type(outcome)
        )
        now = {name: each for name, each in {**now, **changed}.items() if each is not None}
        if isinstance(edit, Register) and alone is True:
            assert sum(each.home is not None for each in now.values()) <= max(count, edit.most)
    together = {name: each for name, each in {**found, **changes}.items() if each is not None}
    assert together == now
