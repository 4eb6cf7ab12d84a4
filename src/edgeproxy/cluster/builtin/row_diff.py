"""Asks another node for all of its rows, to compare them with those here; nothing is taken over.

It uses the messages by which a node repairs itself, under a number that no repair has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from edgeproxy.cluster.engine import EngineError
from edgeproxy.core.cluster.cells import Cell, shown
from edgeproxy.core.cluster.messages import Cells, Pull, Wanted
from edgeproxy.core.cluster.rows import Key, Values
from edgeproxy.core.cluster.store import by_row

ANSWER_SECS = 10.0


class RowDiff:
    """One question to one node.

    Attributes:
        peer: The node.
    """

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._cells: list[Cell] = []
        self._complete = asyncio.Event()

    def pull(self, number: int, generation_id: bytes) -> Pull:
        """Return the message that asks."""
        return Pull(number, Wanted.UNSEEN, generation_id, {})

    def take(self, answer: Cells) -> None:
        """Take a part of the answer."""
        self._cells += answer.cells
        if answer.vector is not None:
            self._complete.set()

    async def rows(self) -> Mapping[Key, Values]:
        """Return the rows there, once all have come. Raises EngineError."""
        try:
            async with asyncio.timeout(ANSWER_SECS):
                await self._complete.wait()
        except TimeoutError:
            raise EngineError(f"{self.peer} did not answer within {ANSWER_SECS:g} s") from None
        found = {}
        for key, cells in by_row(self._cells):
            values = shown(key, {cell.group: cell for cell in cells})
            if values is not None:
                found[key] = values
        return found
