"""A heap whose items may go stale, with no operation that takes long.

An item that goes stale stays until it comes to the front. When too many may be stale, the heap
becomes the old one and a new one begins; every `push` then moves a few items that are still current
from the old heap to the new one, and `front` looks at both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from edgeproxy.core.pacing import Pause, empty, no_pause

T = TypeVar("T", bound=tuple[object, ...])

MOVED_AT_ONCE = 4
"""Items that one `push` moves: with 2 or fewer, the new heap could fill before the old is empty."""

SPARE_ITEMS = 64


class LazyHeap(Generic[T]):
    """The least item that is current comes first. `is_current` says which items are."""

    __slots__ = ("_heap", "_is_current", "_max_items", "_old")

    def __init__(
        self, items: Iterable[T], is_current: Callable[[T], bool], max_current: int
    ) -> None:
        """`items` come in order. There are never more than `max_current` current items."""
        self._is_current = is_current
        self._max_items = 2 * max_current + SPARE_ITEMS
        self._heap = list(items)  # in order, they are a heap already
        self._old: list[T] = []

    def __len__(self) -> int:
        """Return the number of items, with those that are stale."""
        return len(self._heap) + len(self._old)

    def push(self, item: T) -> None:
        """Add an item."""
        heappush(self._heap, item)
        if self._old:
            self._move(MOVED_AT_ONCE)
        elif len(self._heap) > self._max_items:
            self._old, self._heap = self._heap, []

    def front(self) -> T | None:
        """Return the least current item, or None. Drops stale items that are before it."""
        heap, old = self._current(self._heap), self._current(self._old)
        if heap and old:
            return min(heap[0], old[0])
        return heap[0] if heap else old[0] if old else None

    def pop(self) -> T:
        """Remove and return the item that `front` has returned."""
        heap, old = self._heap, self._old
        if not heap or (old and old[0] < heap[0]):
            return heappop(old)
        return heappop(heap)

    def clear(self, rest: Pause = no_pause) -> None:
        """Remove all items, a few at a time."""
        for heap in (self._heap, self._old):
            empty(heap, rest)

    def _current(self, heap: list[T]) -> list[T]:
        while heap and not self._is_current(heap[0]):
            heappop(heap)
        return heap

    def _move(self, count: int) -> None:
        """Move items from the end of the old heap, where removing one keeps its order."""
        old = self._old
        for _ in range(min(count, len(old))):
            item = old.pop()
            if self._is_current(item):
                heappush(self._heap, item)
