"""All items come, in order or sorted, with a rest after every few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.pacing import ITEMS_BETWEEN_RESTS, SORTED_AT_ONCE, no_pause, paced, paced_sorted


@given(st.lists(st.integers()))
def test_every_item_comes_in_order_and_rests_are_in_between(items: list[int]) -> None:
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    assert list(paced(items, rest)) == items
    assert rests == -(-len(items) // ITEMS_BETWEEN_RESTS)
    assert list(paced(items, no_pause)) == items


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.integers())))
def test_sorted_items_are_those_that_sorting_gives(items: list[tuple[float, int]]) -> None:
    assert list(paced_sorted(items, no_pause)) == sorted(items)


def test_no_part_that_is_sorted_at_once_is_long() -> None:
    compared = 0
    most = 0

    class Item(tuple[int]):
        __slots__ = ()

        def __lt__(self, other: tuple[int, ...]) -> bool:
            nonlocal compared
            compared += 1
            return super().__lt__(other)

    def rest() -> None:
        nonlocal compared, most
        most, compared = max(most, compared), 0

    items = [Item((number * 7919 % 20_011,)) for number in range(20_000)]
    assert [each[0] for each in paced_sorted(items, rest)] == sorted(each[0] for each in items)
    assert most < SORTED_AT_ONCE * 12
