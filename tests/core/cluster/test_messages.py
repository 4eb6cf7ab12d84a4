"""How cells are cut into messages."""

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import Cell, size_of
from edgeproxy.core.cluster.messages import CHUNK_BYTES, parts_of
from edgeproxy.core.cluster.rows import Value
from tests.core.cluster.samples import ORIGINS, ROUTE


def cell(size: int) -> Cell:
    values: tuple[Value, ...] = ("x" * size,)
    return Cell(ROUTE, "app", 1, ORIGINS[0], 1, values)


@given(st.lists(st.sampled_from([1, 10_000, 60_000, 300_000]).map(cell), max_size=12))
def test_all_cells_are_in_parts_none_of_which_is_too_large(cells: list[Cell]) -> None:
    parts, is_last = zip(*parts_of(cells), strict=True)
    assert [each for part in parts for each in part] == cells
    assert is_last == (False,) * (len(parts) - 1) + (True,)
    for part in parts:
        assert len(part) == 1 or sum(map(size_of, part)) <= CHUNK_BYTES
        assert part or len(parts) == 1


def test_no_cells_are_one_part() -> None:
    assert list(parts_of([])) == [((), True)]
