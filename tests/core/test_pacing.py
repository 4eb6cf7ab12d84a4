"""All items come, in order, with a rest after every few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.pacing import ITEMS_BETWEEN_RESTS, no_pause, paced


@given(st.lists(st.integers()))
def test_every_item_comes_in_order_and_rests_are_in_between(items: list[int]) -> None:
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    assert list(paced(items, rest)) == items
    assert rests == -(-len(items) // ITEMS_BETWEEN_RESTS)
    assert list(paced(items, no_pause)) == items
