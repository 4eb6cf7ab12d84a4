"""Cells: how they merge, and what rows show."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import (
    ALIVE,
    GONE,
    LIFE,
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    Cell,
    check_row,
    digest_of,
    merged,
    shown,
    shows_else,
    size_of,
    written,
)
from edgeproxy.core.cluster.rows import BACKENDS, ROUTES, TABLES, Key, Value
from tests.core.cluster.samples import BACKEND, ORIGINS, ROUTE, cells, histories

PLACE = {"app": "a", "region": "sa", "country": None, "wg_ip": "10.0.0.1", "port": 80}
ROW: dict[str, Value] = {
    **PLACE,
    "healthy": 1,
    "deleted": 0,
    "weight": 2,
    "soft_limit": 3,
    "hard_limit": 4,
}


def life(stamp: int, values: tuple[Value, ...], origin: bytes = ORIGINS[0]) -> Cell:
    return Cell(BACKEND, LIFE, stamp, origin, 1, values)


def weight(stamp: int, value: int, origin: bytes = ORIGINS[0]) -> Cell:
    return Cell(BACKEND, "weight", stamp, origin, 1, (value,))


@given(histories(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_order_of_writes_does_not_matter(
    writes: list[tuple[Cell, ...]], rng: random.Random, times: int
) -> None:
    once = merged({}, [cell for write in writes for cell in write])
    again = [cell for write in writes for cell in write] * times
    rng.shuffle(again)
    row = merged({}, ())
    for cell in again:
        row = merged(row, [cell])
    assert row == once


@given(histories(), histories())
def test_merging_two_rows_is_merging_all_of_their_writes(
    ones: list[tuple[Cell, ...]], others: list[tuple[Cell, ...]]
) -> None:
    one = merged({}, [cell for write in ones for cell in write])
    other = merged({}, [cell for write in others for cell in write])
    assert merged(one, other.values()) == merged(other, one.values())
    assert merged(one, one.values()) == one


@given(histories())
def test_a_row_shows_the_newest_of_what_was_written(writes: list[tuple[Cell, ...]]) -> None:
    """And nothing of an earlier life, which plain comparison of each group does not ensure."""
    row = merged({}, [cell for write in writes for cell in write])
    every = [cell for write in writes for cell in write]
    lives = [cell for cell in every if cell.group == LIFE]
    newest = max(lives, key=lambda cell: (cell.stamp, cell.origin), default=None)
    columns = shown(BACKEND, row)
    if newest is None or newest.values == GONE:
        assert columns is None
        return
    assert columns is not None
    of_weight = [
        cell
        for cell in every
        if cell.group == "weight" and (cell.stamp, cell.origin) >= (newest.stamp, newest.origin)
    ]
    assert columns["weight"] == max(of_weight, key=lambda c: (c.stamp, c.origin)).values[0]
    assert list(columns) == list(TABLES[BACKENDS].columns)


def test_nothing_shines_through_from_an_earlier_life_even_of_a_group_that_was_not_written() -> None:
    row = merged({}, [life(1, ALIVE), weight(2, 7), life(3, GONE)])
    assert set(row) == {LIFE}
    row = merged(row, [life(4, ALIVE)])
    assert shown(BACKEND, row) == dict.fromkeys(ROW)
    assert merged({}, [life(4, ALIVE), weight(2, 7)]) == row


def test_an_update_that_does_not_know_of_a_delete_waits_for_the_next_life() -> None:
    row = merged({}, [life(1, ALIVE), life(3, GONE), weight(4, 7)])
    assert shown(BACKEND, row) is None
    assert "weight" in row


def test_of_equal_stamps_the_larger_origin_wins() -> None:
    one, other = life(1, ALIVE, ORIGINS[0]), life(1, GONE, ORIGINS[1])
    assert merged({}, [one, other]) == merged({}, [other, one]) == {LIFE: other}


def test_copies_of_one_machine_still_agree() -> None:
    one, other = weight(1, 1), weight(1, 2)
    assert merged({}, [one, other]) == merged({}, [other, one])


def test_rows_of_unknown_tables_are_kept_and_not_shown() -> None:
    key = Key("later", "a")
    row = merged({}, [Cell(key, LIFE, 1, ORIGINS[0], 1, ALIVE)])
    assert row
    assert shown(key, row) is None


def test_an_insert_writes_all_groups_and_an_update_those_that_change() -> None:
    assert set(written(BACKEND, None, ROW)) == {LIFE, *TABLES[BACKENDS].groups}
    assert written(BACKEND, ROW, {**ROW, "weight": 9}) == {"weight": (9,)}
    assert written(BACKEND, ROW, None) == {LIFE: GONE}
    assert written(BACKEND, ROW, ROW) == written(BACKEND, None, None) == {}


def test_a_value_of_another_type_is_another_value() -> None:
    assert written(BACKEND, ROW, {**ROW, "weight": 2.0}) == {"weight": (2.0,)}
    row, other = ({LIFE: life(1, ALIVE), "weight": weight(1, 2)} for _ in range(2))
    other["weight"] = row["weight"]._replace(values=(2.0,))
    assert shows_else(BACKEND, row, other)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (Key("others", "a"), {}),
        (Key(ROUTES, "a"), {"port": 1}),
        (Key(ROUTES, "a" * (MAX_ID_BYTES + 1)), {}),
        (Key(ROUTES, "é" * (MAX_ID_BYTES // 2 + 1)), {}),
        (Key(ROUTES, "\udc80"), {}),
        (ROUTE, {"app": "a" * (MAX_TEXT_BYTES + 1)}),
        (ROUTE, {"app": "\udc80"}),
        (ROUTE, {"app": 1 << 63}),
        (ROUTE, {"app": math.inf}),
        (ROUTE, {"app": math.nan}),
        (ROUTE, {"app": True}),
        (ROUTE, {"app": b"a"}),
    ],
)
def test_what_cannot_be_a_row_everywhere_is_refused(key: Key, values: dict[str, Value]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_row(key, values)


def test_the_largest_values_are_rows() -> None:
    check_row(Key(ROUTES, "a" * MAX_ID_BYTES), {"app": "a" * MAX_TEXT_BYTES})
    check_row(ROUTE, {"app": -(1 << 63)})
    check_row(ROUTE, {"app": None})


@given(cells, cells)
def test_digests_are_equal_for_equal_cells_only(one: Cell, other: Cell) -> None:
    assert (digest_of(one) == digest_of(other)) == (ascii(one) == ascii(other))


def test_a_digest_is_the_same_in_all_versions() -> None:
    cell = Cell(Key(ROUTES, "é\u2028"), "app", 1, ORIGINS[0], 1, ("x", None, 1.5, -1))
    assert f"{digest_of(cell):032x}" == "9e1837a0ca1d4743a3e994a2f79079ea"


@given(cells)
def test_a_size_is_never_too_small(cell: Cell) -> None:
    texts = [cell.key.id, *(value for value in cell.values if isinstance(value, str))]
    assert size_of(cell) >= 80 + sum(len(text.encode()) for text in texts)
