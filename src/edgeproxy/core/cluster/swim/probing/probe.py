"""Who is probed next, and how the probe that runs is going.

Members are probed in turn, in an order that is shuffled anew for every round: so each is probed
within two rounds at most (SWIM section 4.3). One probe runs at a time. Its ping is sent again
and again, after a round trip at first; meanwhile helpers are asked to ping as well.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.tuning import INDIRECT_AFTER, RESEND_MOST_SECS


class Probe:
    """A probe that runs.

    Attributes:
        seq: Names it in messages.
        helpers: Who was asked to help.
        nacks: Which of them had no answer either.
    """

    __slots__ = (
        "_resend_secs",
        "_sent_at",
        "ask_at",
        "ends_at",
        "helpers",
        "nacks",
        "send_at",
        "seq",
        "target_id",
    )

    def __init__(
        self, target_id: str, seq: int, now: float, secs: float, resend_secs: float
    ) -> None:
        self.target_id = target_id
        self.seq = seq
        self.send_at = now
        self.ask_at = now + INDIRECT_AFTER * secs
        self.ends_at = now + secs
        self.helpers: set[str] = set()
        self.nacks: set[str] = set()
        self._resend_secs = resend_secs
        self._sent_at: list[float] = []

    def sent(self, now: float) -> int:
        """Note that a ping is sent; return which attempt it is."""
        self._sent_at.append(now)
        self.send_at = now + self._resend_secs
        self._resend_secs = min(2 * self._resend_secs, RESEND_MOST_SECS)
        return len(self._sent_at) - 1

    def round_trip_secs(self, attempt: int, now: float) -> float | None:
        """Return how long an attempt took; None if that is not known."""
        if attempt >= len(self._sent_at):
            return None
        sent_at = self._sent_at[attempt]
        return now - sent_at if sent_at > 0 else None

    def excuse(self, secs: float) -> None:
        """This node stood still for so long: give more time, and measure nothing."""
        self.send_at += secs
        self.ask_at += secs
        self.ends_at += secs
        self._sent_at = [-1.0] * len(self._sent_at)


class ProbeOrder:
    """In which order members are probed."""

    __slots__ = ("_rng", "_waiting")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._waiting: list[str] = []

    def add(self, node_id: str) -> None:
        """Probe a new member somewhere in this round."""
        self._waiting.insert(self._rng.randint(0, len(self._waiting)), node_id)

    def hasten(self, node_id: str) -> None:
        """Probe a member next: others suspect it, and a second opinion is wanted soon."""
        self._waiting.append(node_id)

    def next(self, live: Collection[str]) -> str | None:
        """Return who is probed next of those that are up; None if nobody is."""
        if not live:
            return None
        while self._waiting:
            node_id = self._waiting.pop()
            if node_id in live:
                return node_id
        self._waiting = list(live)
        self._rng.shuffle(self._waiting)
        return self._waiting.pop()
