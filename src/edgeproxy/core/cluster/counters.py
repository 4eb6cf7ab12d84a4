"""What has happened at a replica, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """What has happened since the start.

    Attributes:
        pushes: Transactions of others that were taken as they came.
        duplicates: Those that were there already.
        gaps: Those that were not the next of their origin.
        refused: Messages with cells of another generation.
        pulls: Pulls begun.
        answers: Pulls that brought all.
        unanswered: Pulls that were given up.
        stale: Parts of answers that nobody waited for any more.
        served: Pulls of others that were answered.
        adoptions: Generations of others taken over.
        drops: Times that old tombstones were dropped.
        resets: Clones made of another node.
        renounced: Origins given up because somebody else has used them.
        divergences: Differences that must not be; an alarm.
        incompatible: Greetings of nodes that speak no common version.
    """

    pushes: int = 0
    duplicates: int = 0
    gaps: int = 0
    refused: int = 0
    pulls: int = 0
    answers: int = 0
    unanswered: int = 0
    stale: int = 0
    served: int = 0
    adoptions: int = 0
    drops: int = 0
    resets: int = 0
    renounced: int = 0
    divergences: int = 0
    incompatible: int = 0
