"""The figures of one run, each printed as soon as it is known, with its target if it has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Bench(NamedTuple):
    """What all sections are told.

    Attributes:
        folder: For files.
        pops: How many POPs a cluster has.
        quick: Whether a tenth of the samples will do.
        partition_secs: How long links are cut.
        watch_secs: For how long false accusations are looked for.
    """

    folder: Path
    pops: int
    quick: bool
    partition_secs: Sequence[float]
    watch_secs: float

    def many(self, count: int) -> int:
        """Return how many samples to take where `count` are usual."""
        return max(2, count // 10) if self.quick else count

    @property
    def names(self) -> list[str]:
        """The names of the POPs."""
        return [f"pop{number:02}" for number in range(1, self.pops + 1)]


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that so large a share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def show(what: str, value: float, unit: str, most: float | None = None, note: str = "") -> None:
    """Print one figure."""
    verdict = "" if most is None else f"≤ {most:g}  {'ok' if value <= most else 'MISSED'}"
    print(f"  {what:<62} {value:>10.3f} {unit:<6} {verdict:<16} {note}".rstrip(), flush=True)


def show_times(
    what: str,
    samples: Sequence[float],
    p50: float | None = None,
    p99: float | None = None,
    note: str = "",
) -> None:
    """Print the median, the 99th percentile and the worst of some times in seconds."""
    note = note or f"n = {len(samples)}, worst {max(samples):.3f} s"
    show(f"{what}, p50", percentile(samples, 0.5), "s", p50)
    show(f"{what}, p99", percentile(samples, 0.99), "s", p99, note)
