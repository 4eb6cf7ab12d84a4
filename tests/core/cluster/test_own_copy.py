"""One copy alone: what it writes, and what it does with parts of answers."""

from __future__ import annotations

from itertools import count

import pytest

from edgeproxy.core.cluster.cells import LIFE, is_tombstone
from edgeproxy.core.cluster.clock import first_of
from edgeproxy.core.cluster.own_copy import HOUR_MS, KEEP_MS, MAX_ROWS, OwnCopy
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, TABLES, Edit, Key, id_of
from edgeproxy.core.cluster.store import MemoryStore
from edgeproxy.core.cluster.vectors import Head
from tests.core.cluster.network import START_MS
from tests.core.cluster.samples import ORIGINS, ROUTE, route


def copy_of(store: MemoryStore | None = None) -> OwnCopy:
    numbers = count(1)
    return OwnCopy(store or MemoryStore(), lambda: next(numbers).to_bytes(16))


def test_an_insert_writes_all_groups_and_what_is_missing_is_none() -> None:
    store = MemoryStore()
    (push,) = copy_of(store).write([Edit(Key(BACKENDS, "a"), {"app": "x"})], "", START_MS)
    assert {cell.group for cell in push.cells} == {LIFE, *TABLES[BACKENDS].groups}
    (row,) = store.changed_after(0)
    assert row.values == {**dict.fromkeys(TABLES[BACKENDS].columns), "app": "x"}


def test_edits_of_one_row_are_one_write() -> None:
    copy = copy_of()
    (push,) = copy.write([route("x"), route("y"), route(None), route("z")], "", START_MS)
    assert {cell.values for cell in push.cells} == {(1,), ("z",)}
    assert len(push.cells) == 2
    assert copy.write([route(None), route("z")], "", START_MS) == []
    assert copy.write([route("y", "new"), route(None, "new")], "", START_MS) == []


def test_a_delete_of_a_row_that_is_not_there_writes_nothing() -> None:
    assert copy_of().write([route(None)], "", START_MS) == []


def test_an_update_of_a_row_that_another_node_has_deleted_revives_nothing() -> None:
    store = MemoryStore()
    copy = copy_of(store)
    key, row = Key(BACKENDS, "a"), dict.fromkeys(TABLES[BACKENDS].columns)
    copy.write([Edit(key, row), Edit(key, None)], "", START_MS)
    copy.write([Edit(key, row)], "", START_MS)
    copy.write([Edit(key, None)], "", START_MS)
    assert copy.write([Edit(key, {"weight": 7})], "token", START_MS) == []
    assert store.facts().token == "token"
    assert copy.write([Edit(key, {**row, "weight": 7})], "", START_MS) != []


def test_a_key_of_several_columns_is_a_row() -> None:
    key = Key(LEASES, id_of(("a", "pop")))
    (push,) = copy_of().write([Edit(key, {"country": "BR"})], "", START_MS)
    assert {cell.key for cell in push.cells} == {key}


def test_each_transaction_has_a_stamp_and_follows_the_one_before() -> None:
    copy = copy_of()
    pushes = copy.write([route("x", str(n)) for n in range(MAX_ROWS + 1)], "", START_MS)
    assert [len(push.cells) for push in pushes] == [2 * MAX_ROWS, 2]
    assert [push.seq for push in pushes] == [1, 2]
    assert pushes[0].cells[0].stamp == first_of(START_MS)
    assert pushes[1].cells[0].stamp == first_of(START_MS) + 1
    assert copy.own_head.seq == 2


def test_a_row_first_heard_of_as_gone_is_a_change() -> None:
    others, store = copy_of(), MemoryStore()
    pushes = [push for app in ("x", None) for push in others.write([route(app)], "", START_MS)]
    cells = [cell for push in pushes for cell in push.cells if is_tombstone(cell)]
    copy_of(store).take_answer(cells, {}, START_MS, is_whole=True)
    assert [(row.key, row.values) for row in store.changed_after(0)] == [(ROUTE, None)]


def test_a_position_moves_only_with_what_is_shown() -> None:
    store = MemoryStore()
    copy = copy_of(store)
    copy.write([route("x"), route("x", "other")], "", START_MS)
    position = store.position()
    copy.write([route("y")], "", START_MS)
    (row,) = store.changed_after(position)
    assert (row.key, row.values) == (ROUTE, {"app": "y"})
    copy.write([route("y")], "", START_MS)
    assert list(store.changed_after(row.position)) == []
    copy.write([route(None)], "", START_MS)
    (gone,) = store.changed_after(row.position)
    assert gone.values is None


def test_parts_of_an_answer_that_never_ended_are_not_taken_with_the_next() -> None:
    one, other = copy_of(), copy_of()
    store = MemoryStore()
    mine = copy_of(store)
    (abandoned,) = one.write([route("x")], "", START_MS)
    (whole,) = other.write([route("y", "other")], "", START_MS)
    mine.stage(abandoned.cells, is_first=True)
    mine.take_answer(whole.cells, {ORIGINS[0]: Head(1, b"")}, START_MS, is_whole=True)
    assert [row.key.id for row in store.changed_after(0)] == ["other"]
    mine.stage(whole.cells, is_first=True)
    mine.take_answer((), {}, START_MS, is_whole=False)
    assert [row.key.id for row in store.changed_after(0)] == ["other"]


def test_a_failed_write_leaves_no_trace() -> None:
    store = MemoryStore()
    copy = copy_of(store)
    before = (store.facts(), store.digest(), copy.vector)
    with pytest.raises(ValueError, match="not replicated"):
        copy.write([route("x"), Edit(Key("others", "a"), {})], "token", START_MS)
    assert (store.facts(), store.digest(), copy.vector) == before


def test_tombstones_are_dropped_by_age_with_their_row_forgotten_later() -> None:
    store = MemoryStore()
    copy = copy_of(store)
    copy.write([route("x")], "", START_MS)
    copy.write([route(None)], "", START_MS)
    copy.confirm(copy.own_head)
    assert not copy.drop(START_MS + KEEP_MS)
    assert [is_tombstone(cell) for cell in store.tombstones()] == [True]
    assert copy.drop(START_MS + KEEP_MS + HOUR_MS)
    assert list(store.tombstones()) == []
    assert store.digest() == 0
    assert len(list(store.changed_after(0))) == 1
    copy.forget_gone(copy.forget_gone(0))
    assert list(store.changed_after(0)) == []


def test_a_restart_takes_a_new_origin_unless_it_was_stopped_in_order() -> None:
    store = MemoryStore()
    copy = copy_of(store)
    copy.write([route("x")], "", START_MS)
    copy.stop()
    assert OwnCopy(store, lambda: b"n" * 16).origin == copy.origin
    killed = OwnCopy(store, lambda: b"n" * 16)
    assert killed.origin == b"n" * 16
    assert store.facts().earlier == (bytes(15) + b"\1",)


def test_the_clock_goes_on_after_a_restart_with_an_earlier_wall_time() -> None:
    store = MemoryStore()
    (first,) = copy_of(store).write([route("x")], "", START_MS)
    (second,) = OwnCopy(store, lambda: b"n" * 16).write([route("y")], "", START_MS - 1_000_000)
    assert second.cells[0].stamp > first.cells[0].stamp


def test_what_a_node_wrote_before_it_began_anew_is_still_its_own() -> None:
    """It is written anew if the next one that is cloned has begun anew without it meanwhile."""
    copy = copy_of()
    (push,) = copy.write([route("x")], "", START_MS)
    copy.stage(push.cells, is_first=True)
    assert copy.clone(copy.vector, {}, copy.clock, START_MS) == []
    copy.stage([], is_first=True)
    (again,) = copy.clone({}, {}, copy.clock, START_MS)
    assert {cell.values for cell in again.cells} == {(1,), ("x",)}
    assert again.origin != push.origin


def test_a_delete_is_written_anew_though_who_is_cloned_does_not_know_the_row() -> None:
    """Somebody else may know the row and not the delete, and is heard of later."""
    copy = copy_of()
    copy.write([route("x")], "", START_MS)
    (deleted,) = copy.write([route(None)], "", START_MS)
    copy.stage([], is_first=True)
    (again,) = copy.clone({}, {}, copy.clock, START_MS)
    assert [(cell.group, cell.values) for cell in again.cells] == [(LIFE, (0,))]
    assert again.cells[0].stamp > deleted.cells[0].stamp
