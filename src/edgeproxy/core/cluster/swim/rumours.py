"""Which news ride on the next message.

There is at most one rumour about a member: the newest replaces the one before. Those told least
often go first. After a number of times, which grows with the logarithm of the cluster, a rumour
has reached everybody with high probability and is dropped (SWIM section 4.1). So the queue is never
longer than the list of members, however many events there are.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeproxy.core.cluster.swim.records import Record, encoded_bytes
from edgeproxy.core.cluster.swim.tuning import MAX_RECORDS_BYTES


class Rumours:
    """Records that are still to be told."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, Record]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._told

    def tell(self, record: Record) -> None:
        """Tell everybody about a member, instead of what was to be told about it before."""
        self._told[record.node_id] = (0, record)

    def forget(self, node_id: str) -> None:
        """Tell nothing about a member any longer."""
        self._told.pop(node_id, None)

    def pick(self, times: int, first: Collection[Record] = ()) -> tuple[Record, ...]:
        """Return what one message tells: `first`, then rumours, each in `times` messages."""
        picked = list(first)
        names = {record.node_id for record in first}
        room = MAX_RECORDS_BYTES - sum(map(encoded_bytes, picked))
        for told, record in sorted(self._told.values(), key=lambda pair: pair[0]):
            size = encoded_bytes(record)
            if size > room or record.node_id in names:
                continue
            room -= size
            picked.append(record)
            if told + 1 >= times:
                del self._told[record.node_id]
            else:
                self._told[record.node_id] = (told + 1, record)
        return tuple(picked)
