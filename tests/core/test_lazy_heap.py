"""A lazy heap gives the least current item, and holds a bounded number of stale ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.lazy_heap import MOVED_AT_ONCE, SPARE_ITEMS, LazyHeap

Item = tuple[int, int]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20), st.booleans()), max_size=400),
)
def test_the_front_is_the_least_current_item(
    keys: int, changes: list[tuple[int, int, bool]]
) -> None:
    current: dict[int, int] = {}
    heap: LazyHeap[Item] = LazyHeap((), lambda item: current.get(item[1]) == item[0], keys)
    for key, value, takes in changes:
        current[key % keys] = value
        heap.push((value, key % keys))
        if takes:
            item = heap.front()
            assert item == min((value, key) for key, value in current.items())
            assert heap.pop() == item
            del current[item[1]]
    while current:
        item = heap.front()
        assert item == min((value, key) for key, value in current.items())
        heap.pop()
        del current[item[1]]
    assert heap.front() is None


def test_items_that_are_there_at_first_are_in_order() -> None:
    heap: LazyHeap[Item] = LazyHeap([(1, 1), (2, 2), (3, 0)], lambda _item: True, 3)
    assert heap.front() == (1, 1)


def test_stale_items_do_not_pile_up() -> None:
    latest: dict[int, int] = {}
    heap: LazyHeap[Item] = LazyHeap((), lambda item: latest[item[1]] == item[0], 10)
    for number in range(10_000):
        latest[number % 10] = number
        heap.push((number, number % 10))
        assert len(heap) <= 2 * (2 * 10 + SPARE_ITEMS) + MOVED_AT_ONCE
    assert heap.front() == (9_990, 0)


def test_a_cleared_heap_is_empty() -> None:
    heap: LazyHeap[Item] = LazyHeap([(1, 1)], lambda _item: True, 1)
    heap.clear()
    assert heap.front() is None
