"""Replicas that lack one rule of the protocol each."""

# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Iterable

from edgeproxy.core.cluster.messages import Push
from edgeproxy.core.cluster.own_copy import OwnCopy, _Change
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import Key
from edgeproxy.core.cluster.vectors import Generation, Head, Origin, Vector
from tests.model.world import Bounds


class AnyGeneration(Replica):
    def _is_foreign(self, generation_id: bytes) -> bool:
        return False


class AnyOrder(Replica):
    def _is_next(self, push: Push, seen: Head) -> bool:
        return True

    def _is_of_another_past(self, push: Push, seen: Head) -> bool:
        return False


class BlindAdoption(Replica):
    def _may_adopt(self, generation: Generation) -> bool:
        return True


class SameOrigin(OwnCopy):
    def _begin_after_clone(self) -> None:
        pass


class DeafClock(OwnCopy):
    def _follow(self, stamp: int) -> None:
        pass


class OldStamps(OwnCopy):
    """Writes anew what a clone does not know, but under the stamp that it had."""

    _old: dict[Key, int] | None = None

    def clone(self, vector: Vector, generation: Generation, clock: int, now_ms: int) -> list[Push]:
        self._old = {}
        for cell in self._store.beyond(vector):
            self._old[cell.key] = max(cell.stamp, self._old.get(cell.key, 0))
        try:
            return super().clone(vector, generation, clock, now_ms)
        finally:
            self._old = None

    def _stamp(self, changes: Iterable[_Change], now_ms: int) -> int:
        changes = list(changes)
        if self._old is None or changes[0].key not in self._old:
            return super()._stamp(changes, now_ms)
        return self._old[changes[0].key]


class LostReplay(OwnCopy):
    """Forgets at a clone what only this node knew."""

    def _unknown(self, *_: object) -> dict[str, tuple[object, ...]]:  # type: ignore[override]
        return {}


class UnwaryDrop(OwnCopy):
    """Drops all tombstones of an origin up to one, but says that it has dropped none."""

    def adopt(self, generation: Generation) -> None:
        before: dict[Origin, int] = dict(self._store.generation())
        super().adopt(generation)
        with self._store.transaction():
            self._store.set_generation(before)


RULES: dict[str, tuple[type[Replica], type[OwnCopy]]] = {
    "generation id": (AnyGeneration, OwnCopy),
    "next of its origin": (AnyOrder, OwnCopy),
    "seen before adopting": (BlindAdoption, OwnCopy),
    "new origin": (Replica, SameOrigin),
    "clock follows": (Replica, DeafClock),
    "new stamp": (Replica, OldStamps),
    "write anew": (Replica, LostReplay),
    "say what is dropped": (Replica, UnwaryDrop),
}
"""What can be taken away, and the classes without it."""

_STEADY = (0,)
BOUNDS = {
    "generation id": Bounds(begin="known", writes=2, answers=0, jumps_ms=_STEADY),
    "next of its origin": Bounds(nodes=2),
    "seen before adopting": Bounds(begin="known", writes=2, answers=1, jumps_ms=_STEADY),
    "new origin": Bounds(begin="away", writes=2, answers=0, jumps_ms=_STEADY),
    "clock follows": Bounds(begin="known", writes=3, answers=0, resets=0),
    "new stamp": Bounds(begin="away", writes=2, answers=0),
    "write anew": Bounds(begin="away", writes=2, answers=0, jumps_ms=_STEADY),
    "say what is dropped": Bounds(begin="known", writes=2, answers=0, jumps_ms=_STEADY),
}
"""In which the fault is found soon."""
