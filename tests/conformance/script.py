"""What two engines are made to do alike: actions drawn from a seed alone.

While it is drawn, the state that every session must come to is kept beside it, so that each
step tells what to wait for before the next one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.prospects import SIDES, SLOTS, Prospect, Session


def _most_buffered_bytes() -> int:
    """Return how much the kernel may hold on the way from a socket to one that nobody reads."""
    limits = (Path(f"/proc/sys/net/ipv4/tcp_{each}").read_text() for each in ("rmem", "wmem"))
    return sum(int(limit.split()[2]) for limit in limits)


FLOOD_BYTES = _most_buffered_bytes() + (2 << 20)
SIZES = ((1, 1), (1, 100), (1000, 8000), (65_535, 65_537), (65_536, 2_000_000))

WEIGHTS = {
    "send": 30,
    "flood": 8,
    "stall": 10,
    "resume": 8,
    "end": 7,
    "leave": 4,
    "reset": 4,
    "abort": 2,
}
MOST_AT_ONCE = 8


@dataclass(frozen=True)
class Step:
    """One action: of a side, on a session, or on a slot."""

    act: str
    session: int = -1
    side: str = ""
    size: int = 0
    slot: str = ""
    prospects: dict[int, Prospect] = field(default_factory=dict, repr=False)


class Plan:
    """Draws a script, and knows what every step of it must lead to."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._sessions: list[Session] = []
        self.steps: list[Step] = []

    def draw(self, count: int) -> list[Step]:
        """Return a script of about `count` steps that ends with everything closed."""
        dice = self._random
        if dice.random() < 0.3:
            self._answered_late()
        while len(self.steps) < count:
            alive = [each for each in self._sessions if not each.reason]
            if not alive or (len(alive) < MOST_AT_ONCE and dice.random() < 0.2):
                self._connect(dice.choice([slot for slot in SLOTS if slot != "late"]))
            elif dice.random() < 0.02:
                self._remove(dice.choice(alive).slot)
            else:
                self._act(dice.choice(alive))
        self._add(Step("stop_accepting"))
        for session in self._sessions:
            if dice.random() < 0.7:
                self._wind_down(session)
        self._stop()
        return self.steps

    def _connect(self, slot: str) -> Session:
        session = Session(len(self._sessions), slot)
        self._sessions.append(session)
        self._add(Step("connect", session.number, slot=slot), session)
        return session

    def _answered_late(self) -> None:
        """A backend answers after it was silent, to one client that speaks before."""
        session = self._connect("late")
        for _ in range(self._random.randrange(3)):
            act, side = self._random.choice(list(session.options()))
            if act in ("send", "end"):
                self._do(session, act, side)
        session.act("answer")
        self._add(Step("relent", session.number, slot="late"), session)

    def _act(self, session: Session) -> None:
        options = list(session.options())
        weights = [WEIGHTS[act] for act, _ in options]
        ((act, side),) = self._random.choices(options, weights)
        self._do(session, act, side)

    def _do(self, session: Session, act: str, side: str = "") -> None:
        size = 0
        if act == "flood":
            size = FLOOD_BYTES
        elif act == "send":
            size = self._random.randint(*self._random.choice(SIZES))
            size = min(size, session.most(side))
        session.act(act, side, size)
        self._add(Step(act, session.number, side, size), session)

    def _remove(self, slot: str) -> None:
        """Close all sessions of a backend that is taken away."""
        removed = [each for each in self._sessions if each.slot == slot and not each.reason]
        for session in removed:
            session.act("abort")
        self._add(Step("remove", slot=slot), *removed)

    def _wind_down(self, session: Session) -> None:
        """Let both sides read on and end in order, where they are still there."""
        self._read_on(session)
        for side in SIDES:
            if ("end", side) in session.options():
                self._do(session, "end", side)

    def _read_on(self, session: Session) -> None:
        for side, end in session.ends.items():
            if end.stalled and not end.gone:
                self._do(session, "resume", side)

    def _stop(self) -> None:
        """Stop the engine with whoever is left, and let everybody read what came."""
        left = [each for each in self._sessions if not each.reason]
        for session in left:
            session.act("abort")
        self._add(Step("stop"), *left)
        for session in self._sessions:
            self._read_on(session)

    def _add(self, step: Step, *touched: Session) -> None:
        step.prospects.update({each.number: each.prospect() for each in touched})
        self.steps.append(step)
