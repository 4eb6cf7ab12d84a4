"""Vectors and generations."""

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import Cell
from edgeproxy.core.cluster.vectors import (
    NOTHING,
    Head,
    Origin,
    both,
    both_dropped,
    chain_after,
    contradicts,
    covers,
    generation_id,
    lacks,
    vector_id,
)
from tests.core.cluster.samples import ORIGINS, ROUTE, cells

heads = st.builds(Head, st.integers(1, 3), st.sampled_from([b"a" * 8, b"b" * 8]))
vectors = st.dictionaries(st.sampled_from(ORIGINS), heads)
generations = st.dictionaries(st.sampled_from(ORIGINS), st.integers(1, 3))


@given(vectors, vectors)
def test_both_have_seen_what_one_has_seen(
    one: dict[Origin, Head], other: dict[Origin, Head]
) -> None:
    union = both(one, other)
    assert union == both(other, one)
    assert not lacks(union, one)
    assert not lacks(union, other)
    assert both(union, other) == union


@given(vectors, vectors)
def test_ids_are_equal_for_equal_vectors_only(
    one: dict[Origin, Head], other: dict[Origin, Head]
) -> None:
    assert (vector_id(one) == vector_id(other)) == (one == other)
    if not (lacks(one, other) or lacks(other, one) or contradicts(one, other)):
        assert one == other


@given(generations, generations)
def test_generations_join(one: dict[Origin, int], other: dict[Origin, int]) -> None:
    union = both_dropped(one, other)
    assert union == both_dropped(other, one)
    assert (generation_id(one) == generation_id(other)) == (one == other)
    seen = {origin: Head(seq, bytes(8)) for origin, seq in union.items()}
    assert covers(seen, one)
    assert covers(seen, other)


def test_an_origin_of_which_nothing_was_seen_covers_nothing() -> None:
    assert not covers({}, {ORIGINS[0]: 1})
    assert covers({}, {})


def test_pasts_contradict_only_at_the_same_transaction() -> None:
    mine = {ORIGINS[0]: Head(2, b"a" * 8)}
    assert contradicts(mine, {ORIGINS[0]: Head(2, b"b" * 8)})
    assert not contradicts(mine, {ORIGINS[0]: Head(3, b"b" * 8)})
    assert not contradicts(mine, {ORIGINS[1]: Head(2, b"b" * 8)})


@given(st.lists(cells, max_size=3))
def test_a_chain_depends_on_what_came_before_and_not_on_the_order_of_cells(
    of_transaction: list[Cell],
) -> None:
    chain = chain_after(NOTHING.chain, of_transaction)
    assert chain == chain_after(NOTHING.chain, of_transaction[::-1])
    assert chain != NOTHING.chain
    assert chain_after(chain, of_transaction) != chain


def test_hashes_are_the_same_in_all_versions() -> None:
    cell = Cell(ROUTE, "app", 1, ORIGINS[0], 1, ("a",))
    assert chain_after(NOTHING.chain, [cell]).hex() == "71ec65ca92723c70"
    assert vector_id({ORIGINS[0]: Head(1, b"a" * 8)}).hex() == "ef065ab3709ee4d6"
    assert generation_id({ORIGINS[0]: 1}).hex() == "0a47e3ac12306e9e"
