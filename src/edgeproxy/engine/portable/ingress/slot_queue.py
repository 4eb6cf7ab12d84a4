"""Clients that wait for a slot; `engine/slot_wait` says for how long, and why.

Nothing is watched for them: what matters is that sessions end, and that time passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.slot_wait import ENDING_SECS, LONGEST_SECS, MAX_WAITING


@dataclass(slots=True)
class _Waiting:
    accepted: Accepted
    place: object
    deadline: float
    is_heard_out: bool = False


class SlotQueue:
    """All clients that wait for a slot. Used on the gate thread only.

    Attributes:
        ending_at: When one side of a session last ended, while its other side may not have.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self.ending_at = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the next client is to be decided at once."""
        return len(self._waiting) >= MAX_WAITING

    def add(self, accepted: Accepted, place: object, now: float) -> None:
        """Let a client wait."""
        self._waiting.append(_Waiting(accepted, place, now + LONGEST_SECS))

    def hear_out(self) -> None:
        """Everything that came before the clients that wait now has been read."""
        for each in self._waiting:
            each.is_heard_out = True

    def to_ask(self, freed: int, now: float) -> Iterator[tuple[Accepted, object, bool]]:
        """Take out whom the gate is to be asked about, and say whether for the last time.

        `freed` is how many sessions have ended. Who still waits is put back with `put_back`.
        """
        is_quiet = now - self.ending_at >= ENDING_SECS
        for _ in range(len(self._waiting)):
            each = self._waiting.popleft()
            is_last = each.deadline <= now or (is_quiet and each.is_heard_out)
            if is_last or freed > 0:
                freed -= not is_last
                self._current = each
                yield each.accepted, each.place, is_last
            else:
                self._waiting.append(each)

    def put_back(self, place: object) -> None:
        """The client that was taken out last goes on waiting."""
        self._current.place = place
        self._waiting.append(self._current)

    def excuse(self, secs: float) -> None:
        """Let all wait longer by the seconds in which this process stood still."""
        for each in self._waiting:
            each.deadline += secs

    def give_up_all(self) -> list[Accepted]:
        """Take out all clients."""
        clients = [each.accepted for each in self._waiting]
        self._waiting.clear()
        return clients
