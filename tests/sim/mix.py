"""What kind of history a seed has: most are small, some have membership, bridges or real files."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

LARGE_EVERY, HUGE_EVERY = 2_000, 20_000
"""One of so many seeds has 50 POPs, or 200."""


@dataclass(frozen=True)
class Mix:
    """The bounds of one history.

    Attributes:
        size: POPs at the start.
        steps: Things that happen, one after the other.
        gossips: POPs find each other by membership; otherwise they know each other.
        bridges: Edits are made in routing databases.
        files: State is kept in real files.
        small_parts: Answers have many parts.
        is_mixed: Some POPs are of a later release, with more groups of columns.
        is_tidy: No backup is restored and nobody leaves for good, so that nothing is excused.
        rows: Different rows.
        pause_secs: Between two steps, on average.
        sync_ms: Between two greetings.
    """

    size: int
    steps: int
    gossips: bool = False
    bridges: bool = False
    files: bool = False
    small_parts: bool = False
    is_mixed: bool = False
    is_tidy: bool = False
    rows: int = 4
    pause_secs: float = 0.4
    sync_ms: int = 1_000

    @property
    def kind(self) -> str:
        """The name of the mix, for counting."""
        if self.size >= 50:
            return "large"
        if self.bridges:
            return "bridges"
        if self.gossips:
            return "members"
        return "files" if self.files else "replicas"


SHARES = {"bridges": 0.04, "members": 0.08, "files": 0.03, "replicas": 0.85}
"""How many of the other seeds are of each kind."""


def mix_of(seed: int, rng: Random, kind: str = "") -> Mix:
    """Return the bounds of the history of a seed, of one kind if that is given."""
    if kind not in SHARES and seed % HUGE_EVERY == HUGE_EVERY - 1:
        return Mix(200, 5, gossips=True, pause_secs=2.0, sync_ms=5_000)
    if kind not in SHARES and seed % LARGE_EVERY == LARGE_EVERY - 1:
        return Mix(50, 12, gossips=True, pause_secs=2.0, sync_ms=5_000)
    (chosen,) = rng.choices(list(SHARES), list(SHARES.values()))
    kind = kind or chosen
    size = rng.choice((3, 3, 3, 4, 5))
    steps = rng.choice((15, 25, 40))
    pause_secs = rng.choice((0.1, 0.3, 1.0))
    is_tidy = rng.random() < 0.5
    if kind == "bridges":
        return Mix(3, 20, gossips=rng.random() < 0.2, bridges=True, is_tidy=True, pause_secs=0.4)
    if kind == "members":
        return Mix(size, 12, gossips=True, is_tidy=is_tidy, pause_secs=1.0)
    return Mix(
        size,
        steps,
        files=kind == "files",
        small_parts=rng.random() < 0.4,
        is_mixed=rng.random() < 0.2,
        is_tidy=is_tidy,
        rows=rng.choice((1, 2, 4, 8)),
        pause_secs=pause_secs,
        sync_ms=rng.choice((300, 1_000, 5_000)),
    )
