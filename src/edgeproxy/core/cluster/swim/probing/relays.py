"""Pings on behalf of others: an answer is passed on, and so is that there is none.

A helper that answers with a nack shows that it can be reached: so whoever asked knows that its own
network works, and the member in question is likely to be down (Lifeguard's LHA-Probe).
"""

from __future__ import annotations

from typing import NamedTuple

from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.core.cluster.swim.tuning import MAX_MEMBERS


class Relay(NamedTuple):
    """A ping on behalf of another.

    Attributes:
        asker: Where the answer goes.
        asker_seq: The probe that it belongs to.
        nack_at: When to say that there was no answer.
    """

    asker: Address
    asker_seq: int
    target_id: str
    nack_at: float


class Relays:
    """The pings that run, by their seq."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: dict[int, Relay] = {}

    def begin(self, seq: int, relay: Relay) -> bool:
        """Remember whom an answer is for; return whether there is room."""
        if len(self._running) >= MAX_MEMBERS:
            return False
        self._running[seq] = relay
        return True

    def answered(self, seq: int, from_id: str) -> Relay | None:
        """Return whom an answer is for; None if for nobody."""
        relay = self._running.get(seq)
        if relay is None or relay.target_id != from_id:
            return None
        return self._running.pop(seq)

    def to_refuse(self, now: float) -> list[Relay]:
        """Return those that had no answer in time, once."""
        late = [seq for seq, relay in self._running.items() if relay.nack_at <= now]
        return [self._running.pop(seq) for seq in late]

    def clear(self) -> None:
        """Forget all, after a standstill."""
        self._running.clear()
