"""The candidates of one place in order of load, so that choosing does not depend on how many.

Every candidate has one current entry `(load score, turn, sequence, candidate)`. Entries of
idle candidates wait in a queue per weight, all others in a heap. When a candidate's load
changes it is placed anew; its older entries are dropped as they come to the front, and a
queue or heap that has collected too many of them is made anew. Full candidates have no
entry until a slot is released; those passed over wait aside.

Among equal loads the lowest turn goes first. A chosen candidate's turn advances by
1/weight, from the turn the place has reached, so shares are exact over any run of choices
and nobody catches up in a burst after an absence (start-time fair queueing: Goyal, Vin,
Cheng, SIGCOMM 1996).

Those who come slowly, with a share of their weight, wait in a heap of their own. Together they
get the part of the clients that their shares are of what the place has: what is least loaded
would be the one that has just come, for every client that finds a connection of the one before
still closing elsewhere.

Only the gate thread chooses and places. A ranking under construction is nobody's yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from heapq import heappop, heappush, heapreplace

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing import scoring
from edgeproxy.core.routing.eligibility import Ineligible, ineligible

Entry = tuple[float, float, int, "Candidate"]

NEVER = float("inf")

MAX_QUEUES = 8
"""Idle candidates of further weights wait in the heap."""

PARTS = 1000
"""What a place has is counted in such parts of a weight, which add up exactly."""


class Candidate:
    """A backend as one table knows it, joined to its live state.

    Attributes:
        backend: The row.
        live: Its live state.
        sequence: Its place in the table, which breaks the last ties.
        table_version: The table it belongs to.
        capacity: See `scoring.capacity`; 0 if its weight is 0.
        unit: Connections in a round; see `scoring`.
        limit: Slots it never exceeds.
        rankings: Where it is ranked; empty if it takes no new clients.
        standing: What it adds to what they have, in `PARTS` of its weight.
        slow: The same if that is only a share of its weight, else 0.
        entry: Its current entry in them, or None while it is full.
    """

    __slots__ = (
        "backend",
        "capacity",
        "entry",
        "limit",
        "live",
        "rankings",
        "sequence",
        "slow",
        "standing",
        "table_version",
        "unit",
    )

    def __init__(
        self,
        backend: Backend,
        live: LiveState,
        sequence: int = 0,
        table_version: int = 0,
    ) -> None:
        self.table_version = table_version
        self.unit = 1
        self.backend = backend
        self.live = live
        self.sequence = sequence
        self.capacity = scoring.capacity(backend)
        self.limit: float = backend.hard_limit or NEVER
        self.rankings: list[Ranking] = []
        self.entry: Entry | None = None
        share = live.share
        self.standing = int(backend.weight * share * PARTS) if live.takes_clients else 0
        self.slow = self.standing if share < 1.0 else 0

    def weigh(self) -> None:
        """Tell the places where it is ranked, after its share changed or it was withheld.

        A turn that lies far ahead because the share was small comes nearer. It has no entry
        then: `place` it.
        """
        share = self.live.share
        takes_clients = self.live.takes_clients
        standing = int(self.backend.weight * share * PARTS) if takes_clients else 0
        slow = standing if share < 1.0 else 0
        if (standing, slow) == (self.standing, self.slow):
            return
        for ranking in self.rankings:
            ranking.available += standing - self.standing
            ranking.slow += slow - self.slow
        self.standing, self.slow = standing, slow
        self.entry = None
        if self.rankings:
            clock = max(ranking.clock for ranking in self.rankings)
            self.live.turn = min(self.live.turn, clock + self.step())

    def step(self) -> float:
        """Return by how much its turn advances when it is chosen."""
        return 1.0 / (self.backend.weight * self.live.share)

    def load(self) -> float:
        """Return what its load adds to the score when candidates are compared."""
        live = self.live
        return scoring.compared_load(live.active, self.capacity, self.unit) / live.share

    def place(self) -> None:
        """Rank this backend after its live state changed.

        Nothing is done where that makes no difference; who ends the time that a backend is
        passed over before it is up takes its `entry` away first.
        """
        if not self.rankings or not self.standing:
            return
        load, turn, entry = self.load(), self.live.turn, self.entry
        if entry is None or entry[0] != load or entry[1] != turn:
            self.entry = entry = (load, turn, self.sequence, self)
            for ranking in self.rankings:
                ranking.push(entry)

    def first_entry(self) -> None:
        """Make an entry for the load of this moment, if there is none."""
        if self.entry is None:
            self.entry = (self.load(), self.live.turn, self.sequence, self)

    def take_turn(self, ranking: Ranking) -> None:
        """Note that this backend was chosen in `ranking`."""
        if ranking.slow:
            ranking.count(self)
            if self.slow:
                return
        live = self.live
        ranking.clock = max(ranking.clock, live.turn)
        live.turn = ranking.clock + 1.0 / (self.backend.weight * live.share)


class Ranking:
    """The candidates of one app, region and country, the least loaded first.

    Attributes:
        members: All that take new clients.
        weight: The sum of their weights, in `PARTS`.
        available: What there is of it now: without those withheld, and only the shares of those
            that come slowly.
        slow: The part of that which those have who come slowly.
        clock: The turn this place has reached.
    """

    def __init__(self, members: Iterable[Candidate], rest: Pause = no_pause) -> None:
        self.members = tuple(members)
        self.weight = sum(each.backend.weight for each in self.members) * PARTS
        self.available = sum(each.standing for each in self.members)
        self.slow = sum(each.slow for each in self.members)
        self.clock = max((each.live.turn - each.step() for each in self.members), default=0.0)
        self._slow_clock = self.clock
        self._owed = 0
        weights = sorted({each.backend.weight for each in self.members})[:MAX_QUEUES]
        self._idle: dict[int, deque[Entry]] = {weight: deque() for weight in weights}
        self._busy: list[Entry] = []
        self._slow_ones: list[Entry] = []
        self._aside: dict[Candidate, None] = {}
        self._wake = NEVER
        self._most = 2 * len(self.members) + 64
        for each in paced(self.members, rest):
            each.rankings.append(self)
            each.first_entry()
        self._remake()

    def clear(self) -> None:
        """Let go of everything; the ranking is of no use afterwards."""
        self.members = ()
        self._busy = []
        self._slow_ones = []
        self._idle.clear()
        self._aside.clear()

    def _remake(self) -> None:
        """Fill queues and heap from the current entries."""
        self._busy = []
        self._slow_ones = []
        self._aside.clear()
        self._wake = NEVER
        for line in self._idle.values():
            line.clear()
        for entry in sorted(each.entry for each in self.members if each.entry is not None):
            queue = None if entry[0] else self._idle.get(entry[3].backend.weight)
            if entry[3].slow:
                self._slow_ones.append(entry)
            else:
                (self._busy if queue is None else queue).append(entry)

    def push(self, entry: Entry) -> None:
        """Take the current entry of a member."""
        line: deque[Entry] | list[Entry]
        queue, busy = None, self._busy
        if self.slow and entry[3].slow:
            busy = self._slow_ones
        elif not entry[0]:
            queue = self._idle.get(entry[3].backend.weight)
        if queue is None:
            line = busy
            if busy and busy[0][3].entry is not busy[0]:
                heapreplace(busy, entry)
            else:
                heappush(busy, entry)
        else:
            line = queue
            queue.append(entry)
        if len(line) > self._most:
            self._remake()

    def best(self, now: float, tried: Collection[str]) -> Entry | None:
        """Return the entry of the candidate to choose, or None if nobody is eligible.

        `tried` are the ids of backends that this client is not to be given again.
        """
        if self._wake <= now:
            self._readmit(now)
        best = None
        for queue in self._idle.values():
            while queue:
                entry = queue[0]
                if self._stands(entry, now, tried):
                    if best is None or entry < best:
                        best = entry
                    break
                queue.popleft()
        busy = self._busy
        while busy and (best is None or not busy[0][0]):
            entry = busy[0]
            if self._stands(entry, now, tried):
                if best is None or entry < best:
                    best = entry
                break
            heappop(busy)
        return self._or_slow(best, now, tried) if self.slow else best

    def _or_slow(self, best: Entry | None, now: float, tried: Collection[str]) -> Entry | None:
        """Return the entry of one that comes slowly if it is their turn, or there is no other."""
        is_their_turn = self._owed >= self.available - self.slow
        slow = self._slow_ones
        while slow and (best is None or is_their_turn):
            entry = slow[0]
            if self._stands(entry, now, tried):
                return entry if best is None or entry[0] <= best[0] else best
            heappop(slow)
        return best

    def count(self, chosen: Candidate) -> None:
        """Note who was chosen while some come slowly: how many clients these are owed.

        A client of theirs costs as much as the others have, each of the others' brings as much
        as they have; nothing is rounded.
        """
        live = chosen.live
        others = self.available - self.slow
        if chosen.slow:
            self._owed = max(self._owed - others, 0)
            self._slow_clock = max(self._slow_clock, live.turn)
            live.turn = self._slow_clock + chosen.step()
        else:
            self._owed = min(self._owed + self.slow, others + self.slow)

    def _stands(self, entry: Entry, now: float, tried: Collection[str]) -> bool:
        """Return whether this is the entry of a candidate that may be chosen now."""
        candidate = entry[3]
        if candidate.entry is not entry:
            return False
        reason = ineligible(candidate.backend, candidate.live, now)
        if reason is None:
            if candidate.backend.id not in tried:
                return True
            self._set_aside(candidate, now)
        elif reason is Ineligible.PASSED_OVER or reason is Ineligible.CIRCUIT_OPEN:
            self._set_aside(candidate, candidate.live.passed_over_until)
        else:
            candidate.entry = None
        return False

    def _set_aside(self, candidate: Candidate, until: float) -> None:
        self._aside[candidate] = None
        self._wake = min(self._wake, until)

    def last_resort(self, tried: Collection[str]) -> list[Candidate]:
        """Return those passed over that could be tried when nobody else is left."""
        return [
            each
            for each in self._aside
            if each.live.active < each.limit
            and each.live.circuit is Circuit.CLOSED
            and each.standing
            and each.backend.id not in tried
        ]

    def _readmit(self, now: float) -> None:
        """Rank those again whose time aside is over."""
        self._wake = NEVER
        for candidate in list(self._aside):
            if candidate.live.passed_over_until > now:
                self._wake = min(self._wake, candidate.live.passed_over_until)
            else:
                self._aside.pop(candidate, None)
                if candidate.entry is not None:
                    self.push(candidate.entry)
