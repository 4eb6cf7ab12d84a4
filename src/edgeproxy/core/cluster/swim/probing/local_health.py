"""How far this node may trust its own view of others (Lifeguard's local health multiplier).

A node that hears nothing may itself be the one that is slow. The more signs of that, the slower it
probes and the longer it waits for answers. It never changes how long others may refute.
"""

from __future__ import annotations

from edgeproxy.core.cluster.swim.tuning import MOST_HEALTH


class LocalHealth:
    """`score` is 0 for a healthy node and at most `MOST_HEALTH`."""

    __slots__ = ("score",)

    def __init__(self) -> None:
        self.score = 0

    def worse(self) -> None:
        """A probe failed and no helper answered, others accused this node, or it was late."""
        self.score = min(self.score + 1, MOST_HEALTH)

    def better(self) -> None:
        """A probe was answered."""
        self.score = max(self.score - 1, 0)

    def factor(self) -> int:
        """Return how many times longer a probe takes."""
        return self.score + 1
