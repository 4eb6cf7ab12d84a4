"""Clients that wait for a slot; `engine/slot_wait` says for how long, and why.

Nothing is watched for them: what matters is that sessions end, and that time passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from edgeproxy.engine.contract import Wait
from edgeproxy.engine.portable.ingress.accepted import Accepted
from edgeproxy.engine.slot_wait import ENDING_SECS, LONGEST_SECS, Shares


@dataclass(slots=True)
class _Waiting:
    accepted: Accepted
    wait: Wait
    deadline: float
    is_heard_out: bool = False


class SlotQueue:
    """All clients that wait for a slot. Used on the gate thread only.

    Attributes:
        ending_at: When one side of a session last ended, while its other side may not have.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()  # in the order of their deadlines
        self._shares = Shares()
        self._freed: set[Hashable] = set()
        self.ending_at = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    def has_room(self, wait: Wait) -> bool:
        """Return whether this client may wait; else it is to be decided at once."""
        return self._shares.has_room(wait)

    def add(self, accepted: Accepted, wait: Wait, now: float) -> None:
        """Let a client wait."""
        self._put(_Waiting(accepted, wait, now + LONGEST_SECS))

    def _put(self, waiting: _Waiting) -> None:
        self._shares.enter(waiting.wait)
        self._waiting.append(waiting)

    def hear_out(self) -> None:
        """Everything that came before the clients that wait now has been read."""
        for each in self._waiting:
            each.is_heard_out = True

    def to_ask(
        self, freed: Iterable[Hashable], now: float
    ) -> Iterator[tuple[Accepted, object, bool]]:
        """Take out whom the gate is to be asked about, and say whether for the last time.

        `freed`: the lines that what has ended may help. Who still waits is to be `put_back`.
        """
        is_quiet = now - self.ending_at >= ENDING_SECS
        self._freed = self._shares.awaited(freed)
        has_freed = bool(self._freed)
        for _ in range(len(self._waiting)):
            each = self._waiting[0]
            is_last = each.deadline <= now or (is_quiet and each.is_heard_out)
            if not is_last and not has_freed:
                break  # nor is it the last time for those who came later
            self._waiting.popleft()
            if is_last or each.wait.line in self._freed:
                self._shares.leave(each.wait)
                self._current = each
                yield each.accepted, each.wait.place, is_last
            else:
                self._waiting.append(each)

    def put_back(self, wait: Wait) -> None:
        """The client that was taken out last goes on waiting, for this."""
        self._freed.discard(wait.line)
        self._current.wait = wait
        self._put(self._current)

    def excuse(self, secs: float) -> None:
        """Let all wait longer by the seconds in which this process stood still."""
        for each in self._waiting:
            each.deadline += secs

    def give_up_all(self) -> list[Accepted]:
        """Take out all clients."""
        clients = [each.accepted for each in self._waiting]
        self._waiting.clear()
        self._shares = Shares()
        return clients
