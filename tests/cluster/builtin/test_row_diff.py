"""All rows of another node, from the parts of its answer."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.cluster.builtin import row_diff
from edgeproxy.cluster.builtin.row_diff import RowDiff
from edgeproxy.cluster.engine import EngineError
from edgeproxy.core.cluster.cells import LIFE, Cell
from edgeproxy.core.cluster.messages import Cells, Pull
from edgeproxy.core.cluster.rows import ROUTES, Key

ORIGIN = bytes(16)


def cell(name: str, group: str, values: tuple[object, ...], stamp: int = 1 << 20) -> Cell:
    return Cell(Key(ROUTES, name), group, stamp, ORIGIN, 1, values)  # type: ignore[arg-type]


def part(number: int, cells: tuple[Cell, ...], *, is_last: bool) -> Cells:
    return Cells(7, number, bytes(8), cells, {} if is_last else None)


def test_rows_are_made_of_all_parts() -> None:
    async def compare() -> None:
        diff = RowDiff("us")
        alive, dead = (True,), (False,)
        diff.take(part(0, (cell("a", LIFE, alive), cell("b", LIFE, dead)), is_last=False))
        diff.take(part(1, (cell("a", "app", ("web",)),), is_last=True))
        assert await diff.rows() == {Key(ROUTES, "a"): {"app": "web"}}

    asyncio.run(compare())


def test_a_node_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_diff, "ANSWER_SECS", 0.01)
    with pytest.raises(EngineError, match="us did not answer"):
        asyncio.run(RowDiff("us").rows())


def test_the_question_asks_for_everything() -> None:
    assert asyncio.run(_pull()).vector == {}


async def _pull() -> Pull:
    return RowDiff("us").pull(7, bytes(8))
