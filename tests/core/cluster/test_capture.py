"""Which differences are edits, and which are undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.capture import FEW_ROWS, Differences, Lineage, Verdict, judge
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, TABLES, Edit, Key, Values, id_of

OLD: Values = dict.fromkeys(TABLES[BACKENDS].columns, 1)
NEW: Values = {**OLD, "weight": 2}


def backend(number: int) -> Key:
    return Key(BACKENDS, f"node-{number}")


def lease(number: int) -> Key:
    return Key(LEASES, id_of((f"node-{number}", "sa")))


def gone(number: int, of: int, **more: object) -> Differences:
    keys = {backend(each) for each in range(number)}
    return Differences(gone=keys, counts={BACKENDS: of, LEASES: 0}, **more)  # type: ignore[arg-type]


def current(found: Differences, *, is_replaced: bool = False) -> Verdict:
    return judge(found, Lineage.CURRENT, is_replaced=is_replaced)


def test_a_changed_row_is_an_edit_of_the_groups_that_changed() -> None:
    found = Differences({backend(1): NEW}, {backend(1): OLD})
    assert current(found).edits == [Edit(backend(1), {"weight": 2})]


def test_a_column_brings_its_whole_group() -> None:
    values = {**OLD, "soft_limit": 5}
    found = Differences({backend(1): values}, {backend(1): OLD})
    assert current(found).edits == [Edit(backend(1), {"soft_limit": 5, "hard_limit": 1})]


def test_a_new_row_is_an_edit_of_all_columns() -> None:
    assert current(Differences({backend(1): NEW})).edits == [Edit(backend(1), NEW)]


@pytest.mark.parametrize(
    ("number", "of", "is_delete"),
    [
        (1, 1, True),
        (2, 2, False),
        (1, 2, True),
        (FEW_ROWS, 11, True),
        (FEW_ROWS + 1, 12, False),
        (20, 100, True),
        (21, 100, False),
    ],
)
def test_many_rows_that_vanish_at_once_are_braked(number: int, of: int, is_delete: bool) -> None:
    verdict = current(gone(number, of))
    assert len(verdict.edits) == (number if is_delete else 0)
    assert (len(verdict.undone), verdict.braked) == ((0, 0) if is_delete else (number, number))


def test_what_is_meant_is_never_braked() -> None:
    meant = {backend(number) for number in range(30)}
    assert len(current(gone(30, 30, meant=meant)).edits) == 30


def test_what_is_meant_does_not_count_for_the_others() -> None:
    meant = {backend(number) for number in range(30)}
    assert len(current(gone(35, 50, meant=meant)).edits) == 35


def test_a_replaced_file_deletes_nothing_but_what_is_meant() -> None:
    verdict = current(gone(3, 50, meant={backend(1)}), is_replaced=True)
    assert verdict.edits == [Edit(backend(1), None)]
    assert verdict.undone == {backend(0), backend(2)}


@pytest.mark.parametrize("number", [5, 30])
def test_the_leases_of_a_backend_share_its_verdict(number: int) -> None:
    found = gone(number, 40)
    found.gone |= {lease(each) for each in range(number)}
    found.counts[LEASES] = 40
    verdict = current(found)
    assert {edit.key for edit in verdict.edits} | verdict.undone == found.gone
    assert not verdict.edits or not verdict.undone


def test_leases_of_a_row_that_is_meant_to_be_replaced_are_deletes() -> None:
    """`edgeproxy node add` deletes a withheld row with its leases, and inserts its own."""
    keys = {lease(each) for each in range(30)}
    meant = {backend(each) for each in range(30)}
    found = Differences(gone=keys, meant=meant, counts={LEASES: 30})
    assert len(current(found).edits) == 30


def test_leases_that_vanish_alone_are_braked() -> None:
    found = Differences(gone={lease(each) for each in range(30)}, counts={LEASES: 40})
    assert current(found).edits == []


def test_an_earlier_copy_is_undone() -> None:
    found = Differences({backend(1): OLD, backend(2): OLD}, {backend(1): NEW}, {backend(3)})
    verdict = judge(found, Lineage.EARLIER, is_replaced=False)
    assert verdict == Verdict([], {backend(1), backend(2), backend(3)})


def test_a_database_made_anew_only_adds() -> None:
    found = Differences({backend(1): OLD, backend(2): OLD}, {backend(1): NEW}, {backend(3)})
    verdict = judge(found, Lineage.UNKNOWN, is_replaced=False)
    assert verdict == Verdict([Edit(backend(2), OLD)], {backend(1), backend(3)})


numbers = st.sets(st.integers(0, 60))


@given(numbers, numbers, numbers, st.sampled_from(Lineage), st.booleans())
def test_every_difference_is_an_edit_or_undone(
    changed: set[int], new: set[int], absent: set[int], lineage: Lineage, is_replaced: bool
) -> None:
    known = {backend(number): OLD for number in changed - absent}
    present = {backend(number + 100): NEW for number in new} | dict.fromkeys(known, NEW)
    found = Differences(
        present, known, {backend(number) for number in absent}, counts={BACKENDS: 61}
    )
    verdict = judge(found, lineage, is_replaced=is_replaced)
    edited = {edit.key for edit in verdict.edits}
    assert edited | verdict.undone == present.keys() | found.gone
    assert not edited & verdict.undone
    deleted = [edit for edit in verdict.edits if edit.values is None]
    if is_replaced or lineage is not Lineage.CURRENT:
        assert deleted == []
