"""The randomness that membership is given: that of `random.Random`, by its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Rng(Protocol):
    """A source of random numbers; one with a seed repeats a run."""

    def random(self) -> float:
        """Return a number from 0 to 1, below 1."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number from `a` to `b`."""

    def randint(self, a: int, b: int) -> int:
        """Return a whole number from `a` to `b`, both included."""

    def getrandbits(self, k: int, /) -> int:
        """Return a number of `k` random bits."""

    def choice(self, seq: Sequence[_T]) -> _T:
        """Return one of several."""

    def sample(self, population: Sequence[_T], k: int) -> list[_T]:
        """Return `k` different ones."""

    def shuffle(self, x: list[Any]) -> None:
        """Put them into another order."""
