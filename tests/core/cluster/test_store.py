"""The store in memory; what all stores must do is in `tests/cluster/conformance`."""

import pytest

from edgeproxy.core.cluster.cells import ALIVE, LIFE, Cell
from edgeproxy.core.cluster.rows import Key
from edgeproxy.core.cluster.store import MemoryStore, by_row
from tests.core.cluster.samples import ORIGINS, ROUTE


def test_a_copy_does_not_change_with_its_original() -> None:
    store = MemoryStore()
    other = store.copy()
    with store.transaction():
        store.set_row(ROUTE, {}, {LIFE: Cell(ROUTE, LIFE, 1, ORIGINS[0], 1, ALIVE)})
    assert other.row(ROUTE) == {}
    assert other.position() == 0


def test_a_change_outside_of_a_transaction_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        MemoryStore().set_generation({})


def test_cells_come_by_row() -> None:
    other = Key("backends", "a")
    cells = [Cell(key, LIFE, 1, ORIGINS[0], 1, ALIVE) for key in (ROUTE, other, ROUTE)]
    assert list(by_row(cells)) == [(other, [cells[1]]), (ROUTE, [cells[0], cells[2]])]
