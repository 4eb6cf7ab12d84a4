"""An engine that holds its state in memory: the simplest one that keeps the contract.

It merges by the larger (time, POP) of each group of columns, as the built-in engine does. What two
engines have is exchanged by hand, so a test decides when a POP hears of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeproxy.cluster.engine import Changes, EngineError, LostPositionError
from edgeproxy.core.cluster.rows import TABLES, Edit, Key, Value, Values

Stamp = tuple[int, str]
LIFE = "life"
PAGE_ROWS = 20


class MemoryEngine:
    """The engine of one POP."""

    def __init__(self, node: str, *, ready: bool = True) -> None:
        self.node = node
        self.ready = ready
        self.commits: list[Sequence[Edit]] = []
        self._cells: dict[tuple[Key, str], tuple[Stamp, object]] = {}
        self._token = ""
        self._last_ms = 0
        self._changed: list[Key] = []

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        if after != self._token:
            raise EngineError("another bridge has committed meanwhile")
        self._last_ms = max(at_ms, self._last_ms + 1)
        stamp = (self._last_ms, self.node)
        for key, values in edits:
            for group, content in _cells_of(key, values, self.row(key)).items():
                self._cells[key, group] = (stamp, content)
            self._changed.append(key)
        self._token = token
        if edits:
            self.commits.append(edits)

    def last_token(self) -> str:
        return self._token

    def changes(self, after: str) -> Changes:
        first = int(after or 0)
        if first > len(self._changed):
            raise LostPositionError("these rows are of another state")
        page = self._changed[first : first + PAGE_ROWS]
        last = first + len(page)
        rows = {key: self.row(key) for key in page}
        return Changes(str(last), rows, last < len(self._changed))

    def is_ready(self) -> bool:
        return self.ready

    def row(self, key: Key) -> Values | None:
        life = self._cells.get((key, LIFE))
        if life is None or not life[1]:
            return None
        values: dict[str, Value] = {}
        for group, names in TABLES[key.table].groups.items():
            _, content = self._cells.get((key, group), (None, {}))
            assert isinstance(content, dict)
            values |= {name: content.get(name) for name in names}
        return values

    def rows(self) -> Mapping[Key, Values]:
        found = {key: self.row(key) for key, _ in self._cells}
        return {key: values for key, values in found.items() if values is not None}

    def hear(self, other: MemoryEngine) -> None:
        """Take what another engine has."""
        for place, (stamp, content) in other._cells.items():
            mine = self._cells.get(place)
            if mine is None or stamp > mine[0]:
                self._cells[place] = (stamp, content)
                self._changed.append(place[0])
        self._last_ms = max(self._last_ms, other._last_ms)


def _cells_of(key: Key, values: Values | None, before: Values | None) -> dict[str, object]:
    if values is None:
        return {LIFE: False}
    groups: dict[str, object] = {
        group: {name: values[name] for name in names}
        for group, names in TABLES[key.table].groups.items()
        if all(name in values for name in names)
    }
    return {LIFE: True, **groups} if before is None else groups
