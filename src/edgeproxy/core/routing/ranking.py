"""The candidates of one place in order of load: a choice costs the same, however many they are.

Every candidate has one current entry `(load score, turn, sequence, candidate)`. Entries of
idle candidates wait in a queue per weight, all others in a heap. When a candidate's load
changes it is placed anew. Its older entry leaves the queue at once, and the heap as it comes to
the front. A heap that has collected too many of them is replaced by a new one, into which each
further placement moves a few entries, so that no placement takes long. Full candidates have no
entry until a slot is released. Others wait elsewhere: those that failed lately in
`core/routing/passed_over`, those that are down in `core/routing/down`.

Among equal loads the lowest turn goes first. A chosen candidate's turn advances by
1/weight, from the turn the place has reached, so shares are exact over any run of choices
and no backend catches up in a burst after an absence (start-time fair queueing: Goyal, Vin,
Cheng, SIGCOMM 1996).

Backends in slow start wait elsewhere (`core/routing/slow_start_turns`).

Only the gate thread chooses and places. A ranking under construction is not yet shared.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable
from heapq import heappop, heappush, heapreplace

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveState
from edgeproxy.core.lazy_heap import LazyHeap
from edgeproxy.core.pacing import Pause, empty, no_pause, paced, paced_sorted
from edgeproxy.core.routing import scoring
from edgeproxy.core.routing.down import Down, is_current
from edgeproxy.core.routing.eligibility import Ineligible, ineligible
from edgeproxy.core.routing.passed_over import PassedOver
from edgeproxy.core.routing.slow_start_turns import SlowStartTurns

Entry = tuple[float, float, int, "Candidate"]

NEVER = float("inf")

MAX_QUEUES = 8
"""Queues for idle candidates, one for each weight; those of further weights are in the heap."""

MOVED_AT_ONCE = 4
"""Entries that one placement moves: enough to empty an old heap before a new one fills."""

PARTS = 1000
"""Weights are summed in thousandths, as integers, so that sums are exact."""


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
        standing: What it adds to their `available`, in `PARTS`; 0 while it takes no clients.
        slow_standing: The same while it is in slow start, else 0.
        entry: Its current entry in them, or None while it is full.
        is_full: Whether it counts as full in them.
    """

    __slots__ = (
        "backend",
        "capacity",
        "entry",
        "is_full",
        "limit",
        "live",
        "rankings",
        "sequence",
        "slow_standing",
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
        self.is_full = live.active >= self.limit
        share = live.share
        self.standing = int(backend.weight * share * PARTS) if live.takes_clients else 0
        self.slow_standing = self.standing if share < 1.0 else 0

    def weigh(self) -> None:
        """Update the sums of its places, after its share changed or it stopped taking clients.

        A turn that lies far ahead because the share was small is brought nearer. The candidate
        has no entry afterwards: call `place`.
        """
        share = self.live.share
        takes_clients = self.live.takes_clients
        standing = int(self.backend.weight * share * PARTS) if takes_clients else 0
        slow = standing if share < 1.0 else 0
        if (standing, slow) == (self.standing, self.slow_standing):
            return
        for ranking in self.rankings:
            ranking.available += standing - self.standing
            ranking.slow_start.standing += slow - self.slow_standing
        self.standing, self.slow_standing = standing, slow
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

        Does nothing if its entry is still right. To end early the time for which a backend is
        passed over, set its `entry` to None first.
        """
        if not self.rankings:
            return
        if (self.live.active >= self.limit) is not self.is_full:
            self._note_full()
        load, turn, entry = self.load(), self.live.turn, self.entry
        if entry is None or entry[0] != load or entry[1] != turn:
            self.entry = entry = (load, turn, self.sequence, self)
            for ranking in self.rankings:
                ranking.push(entry)

    def _note_full(self) -> None:
        self.is_full = not self.is_full
        for ranking in self.rankings:
            ranking.full += 1 if self.is_full else -1

    def first_entry(self) -> None:
        """Make an entry for the load of this moment, if there is none."""
        if self.entry is None:
            self.entry = (self.load(), self.live.turn, self.sequence, self)

    def take_turn(self, ranking: Ranking) -> None:
        """Note that this backend was chosen in `ranking`."""
        live, slow_start = self.live, ranking.slow_start
        if slow_start.standing:
            others = ranking.available - slow_start.standing
            if self.slow_standing:
                live.turn = slow_start.take_turn(live.turn, self.step(), others)
                return
            slow_start.note_other(others)
        ranking.clock = max(ranking.clock, live.turn)
        live.turn = ranking.clock + 1.0 / (self.backend.weight * live.share)


class Ranking:
    """The candidates of one app, region and country, the least loaded first.

    Attributes:
        members: All that take new clients.
        weight: The sum of their weights, in `PARTS`.
        available: The sum of their weights now: 0 for one that takes no clients, only its share
            for one in slow start.
        full: The number of members that are at their hard limit.
        slow_start: Those in slow start.
        passed_over: The members that failed lately.
        down: The members whose probes say that they are down.
        clock: The turn this place has reached.
    """

    def __init__(self, members: Iterable[Candidate], rest: Pause = no_pause) -> None:
        self.members = tuple(members)
        self.weight = self.available = self.full = slow_standing = 0
        clocks = -math.inf
        weights = set()
        for each in paced(self.members, rest):
            self.weight += each.backend.weight * PARTS
            self.available += each.standing
            self.full += each.is_full
            slow_standing += each.slow_standing
            clocks = max(clocks, each.live.turn - each.step())
            weights.add(each.backend.weight)
        self.clock = clocks if self.members else 0.0
        self._idle: dict[int, OrderedDict[Candidate, Entry]]
        self._idle = {weight: OrderedDict() for weight in sorted(weights)[:MAX_QUEUES]}
        self._busy: list[Entry] = []
        self._busy_rest: list[Entry] = []  # the old heap, while a new one is made
        self.passed_over = PassedOver(len(self.members))
        self._most = 2 * len(self.members) + 64
        for each in paced(self.members, rest):
            each.rankings.append(self)
            each.first_entry()
        entries = (each.entry for each in self.members if each.entry)
        slow: list[Entry] = []
        down: list[Entry] = []
        for entry in paced_sorted(entries, rest):
            if not entry[3].standing:
                down.append(entry)
            elif entry[3].slow_standing:
                slow.append(entry)
            else:
                queue = None if entry[0] else self._idle.get(entry[3].backend.weight)
                if queue is None:
                    self._busy.append(entry)
                else:
                    queue[entry[3]] = entry
        self.slow_start: SlowStartTurns[Entry] = SlowStartTurns(
            slow_standing, self.clock, LazyHeap(slow, is_current, len(self.members))
        )
        self.down = Down(down, len(self.members))

    def clear(self, rest: Pause = no_pause) -> None:
        """Drop all references, a few at a time; the ranking cannot be used afterwards."""
        self.members = ()
        for queue in self._idle.values():
            for _ in paced(range(len(queue)), rest):
                queue.popitem()
        for heap in (self._busy, self._busy_rest):
            empty(heap, rest)
        self.slow_start.heap.clear(rest)
        self.passed_over.clear(rest)
        self.down.clear(rest)

    def push(self, entry: Entry) -> None:
        """Take the current entry of a member."""
        candidate = entry[3]
        queue = self._idle.get(candidate.backend.weight)
        if queue is not None and candidate in queue:
            del queue[candidate]
        if not candidate.standing:
            self.down.push(entry)
            return
        if candidate.slow_standing:
            self.slow_start.heap.push(entry)
            return
        if queue is not None and not entry[0]:
            queue[candidate] = entry
            return
        busy = self._busy
        if busy and busy[0][3].entry is not busy[0]:
            heapreplace(busy, entry)
        else:
            heappush(busy, entry)
        if self._busy_rest or len(busy) > self._most:
            self._move_busy()

    def _move_busy(self) -> None:
        """Move a few current entries from the old heap to the new one; begin that if need be."""
        if not self._busy_rest:
            self._busy_rest, self._busy = self._busy, []
        old, busy = self._busy_rest, self._busy
        for _ in range(min(MOVED_AT_ONCE, len(old))):
            entry = old.pop()  # from the end, where removing one keeps the order of the heap
            if is_current(entry):
                heappush(busy, entry)

    def best(self, now: float, tried: Collection[str]) -> Entry | None:
        """Return the entry of the candidate to choose, or None if none is eligible.

        `tried` are the ids of backends that this client is not to be given again.
        """
        if not self.passed_over.until:
            return self._best(now, tried)
        return self.passed_over.choose(now, self.push, lambda: self._best(now, tried))

    def _best(self, now: float, tried: Collection[str]) -> Entry | None:
        best = None
        skipped: list[Entry] = []
        for queue in self._idle.values():
            while queue:
                entry = queue[next(iter(queue))]
                if self._stands(entry, now, tried, skipped):
                    if best is None or entry < best:
                        best = entry
                    break
                del queue[entry[3]]
        for busy in (self._busy, self._busy_rest) if self._busy_rest else (self._busy,):
            while busy and (best is None or busy[0] < best):
                entry = busy[0]
                if self._stands(entry, now, tried, skipped):
                    best = entry
                    break
                heappop(busy)
        if self.slow_start.standing:
            others = self.available - self.slow_start.standing
            best = self.slow_start.choose(
                best, others, lambda entry: self._stands(entry, now, tried, skipped)
            )
        if skipped:
            self._put_back(skipped)
        return best

    def _stands(
        self, entry: Entry, now: float, tried: Collection[str], skipped: list[Entry]
    ) -> bool:
        """Return whether this is the entry of a candidate that may be chosen now.

        If it only must not be chosen for this client, append it to `skipped`.
        """
        candidate = entry[3]
        if candidate.entry is not entry:
            return False
        reason = ineligible(candidate.backend, candidate.live, now)
        if reason is None:
            if candidate.backend.id not in tried:
                return True
            skipped.append(entry)
        elif reason is Ineligible.PASSED_OVER or reason is Ineligible.CIRCUIT_OPEN:
            self.passed_over.add(entry)
        else:
            candidate.entry = None
        return False

    def _put_back(self, skipped: list[Entry]) -> None:
        """Return entries that were skipped to where they were."""
        for entry in reversed(skipped):
            queue = None if entry[0] else self._idle.get(entry[3].backend.weight)
            if entry[3].slow_standing:
                self.slow_start.heap.push(entry)
            elif queue is None:
                heappush(self._busy, entry)
            else:
                queue[entry[3]] = entry
                queue.move_to_end(entry[3], last=False)
