"""What must become of a session, whatever the timing.

Only actions whose outcome does not depend on timing are offered: both sides never act at
once, nobody sends bulk to a peer that has left, and so on. How many bytes came through is
known but for a way on which bytes are stuck, or were lost with a reset while they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edgeproxy.engine.contract import CloseReason

SLOTS = {
    "direct": "plain",
    "second": "small",
    "narrow": "small",
    "silent": "silent",
    "late": "silent",
    "nobody": "refused",
    "closed": "refused",
}
"""Listeners, and what becomes of those who connect: `plain` and `small` (buffers) are served,
by the second address for `second`; nobody answers on `silent`, and on `late` not before one is
told to; all dials of `nobody` are refused, and `closed` has no address to dial."""

SIDES = ("client", "server")
SMALL_BYTES = 8000
"""So much fits the kernel's buffer of a peer that does not read."""


class Expected(NamedTuple):
    """What a side must have come to. `received` and `unread` are None if nobody can know."""

    received: int | None
    unread: int | None
    saw: str


class Prospect(NamedTuple):
    """What a session must have come to.

    Attributes:
        ends: By side; those that are there and have not left.
        blocked: The sides whose kernel must take no more.
        reason: How the session was closed, `refused`, or nothing yet.
        inexact: The sides that receive an amount which nobody can know.
    """

    ends: dict[str, Expected]
    blocked: frozenset[str]
    reason: str
    inexact: frozenset[str]


@dataclass
class Way:
    """One direction, named by the side that receives."""

    sent: int = 0
    read: int = 0
    stuck: bool = False
    lost: bool = False


@dataclass
class End:
    """One side of a planned session. `will_see` is what reading to the end must show it."""

    stalled: bool = False
    ending: bool = False
    gone: bool = False
    will_see: str = ""
    seen: str = ""


class Session:
    """A planned session and the rules of what its two sides see of each other.

    Attributes:
        dialing: Its backend has not answered, and will not unless it is told to.
        reached: There is a side of the backend's.
        doomed: The backend has reset, but the client does not read what was said before.
        reason: How it was closed, `refused`, or nothing yet.
        ends: By side.
        ways: By the side that receives.
    """

    def __init__(self, number: int, slot: str) -> None:
        self.number = number
        self.slot = slot
        self.dialing = SLOTS[slot] == "silent"
        self.reached = SLOTS[slot] in ("plain", "small")
        self.doomed = False
        self.reason = ""
        self.ends = {side: End() for side in SIDES}
        self.ways = {side: Way() for side in SIDES}
        if SLOTS[slot] == "refused":
            self._over("refused", "client", "end")
            self._look()

    # -- what may be done -------------------------------------------------------------

    def options(self) -> Iterator[tuple[str, str]]:
        """Yield the actions whose outcome is certain, as (action, side)."""
        if self.reason:
            return
        yield "abort", ""
        for side in ("client",) if self.dialing else SIDES:
            end, other = self.ends[side], self.ends[_other(side)]
            outgoing = self.ways[_other(side)]
            if end.gone:
                continue
            if end.stalled:
                yield "resume", side
            if self.doomed:
                continue
            yield "reset", side
            if not outgoing.stuck:
                yield "leave", side
            if not end.stalled and not end.will_see and not self.dialing:
                yield "stall", side
            if not end.ending:
                yield "end", side
            if not end.ending and not outgoing.stuck:
                if self.most(side):
                    yield "send", side
                if other.stalled and not other.gone and SLOTS[self.slot] == "small":
                    yield "flood", side

    def most(self, side: str) -> int:
        """Return how much may be sent from `side` with a certain outcome."""
        way, other = self.ways[_other(side)], self.ends[_other(side)]
        if other.gone:
            return 1000
        if other.stalled or self.dialing:
            return SMALL_BYTES - (way.sent - way.read)
        return 1 << 30

    # -- what comes of it -------------------------------------------------------------

    def act(self, act: str, side: str = "", size: int = 0) -> None:
        """Note what an action leads to."""
        getattr(self, f"_{act}")(side, size)
        self._look()

    def _look(self) -> None:
        """Let those who read have read everything that can reach them."""
        for side, end in self.ends.items():
            if not end.stalled:
                end.seen = end.will_see
                if self.reached and not self.ways[side].stuck:
                    self.ways[side].read = self.ways[side].sent

    def _send(self, side: str, size: int) -> None:
        self.ways[_other(side)].sent += size
        if self.ends[_other(side)].gone and not self.dialing:
            self._over(_reset_by(_other(side)), side, "reset")

    def _flood(self, side: str, size: int) -> None:
        way = self.ways[_other(side)]
        way.sent += size
        way.stuck = True

    def _stall(self, side: str, _size: int = 0) -> None:
        self.ends[side].stalled = True

    def _resume(self, side: str, _size: int = 0) -> None:
        self.ends[side].stalled = False
        way = self.ways[side]
        if self.reason:
            return
        if self.doomed:
            way.lost = True
            self._over(CloseReason.BACKEND_RESET, side, "reset")
        elif way.stuck:
            way.stuck = False
            if self.ends[_other(side)].ending:
                self._fin_reaches(side)

    def _end(self, side: str, _size: int = 0) -> None:
        self.ends[side].ending = True
        if not self.dialing and not self.ways[_other(side)].stuck:
            self._fin_reaches(_other(side))

    def _leave(self, side: str, _size: int = 0) -> None:
        way = self.ways[side]
        if way.stuck or way.sent > way.read:  # a close with something unread is a reset
            self._reset(side)
            return
        self.ends[side].gone = True
        if not self.ends[side].ending:
            self._end(side)

    def _reset(self, side: str, _size: int = 0) -> None:
        self.ends[side].gone = True
        if self.dialing:
            self._over(CloseReason.CLIENT_GONE)
        elif side == "server" and self.ways["client"].stuck:
            self.doomed = True  # the client may still read what was said before
            self.ways["client"].lost = True
            self.ways["server"].lost |= self.ways["server"].stuck
        else:
            self._over(_reset_by(side), _other(side), "reset")

    def _abort(self, _side: str, _size: int) -> None:
        stuck = any(way.stuck for way in self.ways.values())
        if self.dialing:
            stuck = bool(self.ways["server"].sent)
        for side in SIDES:
            self._over(CloseReason.ABORTED, side, "reset" if stuck else "end")

    def _answer(self, _side: str, _size: int) -> None:
        """The backend that was dialed answers at last."""
        self.dialing, self.reached = False, True
        if self.ends["client"].ending:
            self._fin_reaches("server")

    def _fin_reaches(self, side: str) -> None:
        self._sees(side, "end")
        if all(end.ending for end in self.ends.values()) and not any(
            way.stuck for way in self.ways.values()
        ):
            self.reason = CloseReason.FINISHED

    def _sees(self, side: str, what: str) -> None:
        self.ends[side].will_see = self.ends[side].will_see or what

    def _over(self, reason: str, side: str = "", sees: str = "") -> None:
        self.reason = reason
        if side:
            outgoing = self.ways[_other(side)]
            breaks = sees == "reset" and (outgoing.stuck or outgoing.lost)
            if breaks and not self.ends[side].seen:  # its sending does, before it reads on
                self.ends[side].will_see = ""
            self._sees(side, sees)
        for way in self.ways.values():
            way.lost |= way.stuck
            way.stuck = False

    def prospect(self) -> Prospect:
        """Return what must come about now."""
        return Prospect(
            {
                side: self._expected(side)
                for side, end in self.ends.items()
                if not end.gone and (side == "client" or self.reached)
            },
            frozenset(
                _other(side)
                for side, way in self.ways.items()
                if way.stuck and not self.ends[_other(side)].gone
            ),
            self.reason,
            frozenset(side for side, way in self.ways.items() if way.stuck or way.lost),
        )

    def _expected(self, side: str) -> Expected:
        end, way = self.ends[side], self.ways[side]
        if way.stuck or way.lost:
            return Expected(None, None, end.seen)
        return Expected(way.read, way.sent - way.read if end.stalled else 0, end.seen)


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def _reset_by(side: str) -> CloseReason:
    return CloseReason.CLIENT_RESET if side == "client" else CloseReason.BACKEND_RESET
