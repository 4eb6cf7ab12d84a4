"""Long lists become JSON in pieces that are small, whatever is in them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.control.observe.json_pieces import PIECE_BYTES, array, encoded, with_array

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5
)


@given(st.lists(ANYTHING))
def test_an_array_is_its_items(items: list[object]) -> None:
    assert json.loads(b"".join(array(items))) == items


@given(st.dictionaries(st.text().filter(lambda name: name != "items"), ANYTHING, min_size=1))
def test_an_object_has_its_members_and_the_array(head: dict[str, object]) -> None:
    told = json.loads(b"".join(with_array(head, "items", [encoded(1), encoded("a")])))
    assert told == {**head, "items": [1, "a"]}


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert json.loads(encoded("\ud800")) == "\ud800"


def test_pieces_are_small() -> None:
    item = "x" * 100
    sizes = [len(piece) for piece in array([item] * 10_000)]
    assert len(sizes) > 10
    assert max(sizes) <= PIECE_BYTES + len(item) + 500
