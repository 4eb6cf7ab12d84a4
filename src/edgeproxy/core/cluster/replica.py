"""The replica: decides what a node tells others, and what it takes of what they say.

A transaction is pushed by its writer to all. It is taken if it is the next one of its origin and
of the same generation; all else is pulled. One pull is under way at a time: whatever it brings, the
next one asks only for what is still missing. Nothing depends on a message that arrives: a greeting
every sync interval finds every difference. What the writer could not reach gets a change from any
other node in that interval, because its own greeting goes to one that has it.

The rules:
- Cells of another generation are not taken. Who has seen all that another generation has dropped
  drops it too. Who has not starts anew, as a clone, and writes again what only it knew.
- An origin is used by one past only. Who hears that somebody has used its origin takes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from edgeproxy.core.cluster.counters import Counters
from edgeproxy.core.cluster.messages import (
    VERSIONS,
    Cells,
    Hello,
    Message,
    Pull,
    Push,
    Reset,
    Send,
    Wanted,
    parts_of,
)
from edgeproxy.core.cluster.own_copy import HOUR_MS, OwnCopy
from edgeproxy.core.cluster.rows import Edit
from edgeproxy.core.cluster.store import Store
from edgeproxy.core.cluster.vectors import (
    NOTHING,
    Generation,
    Head,
    Origin,
    Vector,
    contradicts,
    covers,
    generation_id,
    lacks,
)

ANSWER_MS = 5_000
"""How long a part of an answer may take."""

GREETING_GAP_MS = 200
"""Between two greetings of a peer whose messages cannot be taken."""

REPAIR_GAP_MS = 60_000
"""Between two pulls of everything because of a difference that must not be."""


class Rng(Protocol):
    """What chooses whom to greet, such as `random.Random`."""

    def choice(self, seq: Sequence[str], /) -> str:
        """Return one of several names."""


@dataclass
class _Pull:
    peer: str
    number: int
    wanted: Wanted
    since_ms: int
    parts: int = 0


class Replica:
    """One node among its peers. Peers are called by the names of their sessions.

    What a method returns is to be sent after it returns: it is durable then. Messages to a peer
    keep their order; any may be lost.
    """

    def __init__(self, store: Store, new_origin: Callable[[], Origin]) -> None:
        """Start with what is in the store. `new_origin` returns 16 random bytes."""
        self.copy = OwnCopy(store, new_origin)
        self.counters = Counters()
        self._peers: dict[str, dict[Origin, Head]] = {}
        """What each peer is known to have seen."""
        self._compared: set[str] = set()
        """Whose vector has been heard in this session."""
        self.is_level = False
        """Whether all that some peer had seen has been seen here, since the start."""
        self._greeted_ms: dict[str, int] = {}
        self._pull: _Pull | None = None
        self._last_number = 0
        self._dropped_ms: int | None = None
        self._repaired_ms: int | None = None
        self._gone_position = 0

    def greet(self, peer: str, now_ms: int) -> list[Send]:
        """Ask a peer whether there is a difference, out of turn."""
        is_due = _is_over(self._greeted_ms.get(peer), GREETING_GAP_MS, now_ms)
        return [self._greeting(peer, now_ms)] if peer in self._peers and is_due else []

    def behind(self, peer: str) -> tuple[int, int] | None:
        """Return how many transactions are missing here, and at a peer; None if it is not known."""
        theirs = self._peers.get(peer)
        if theirs is None or peer not in self._compared:
            return None
        return _missing(self.copy.vector, theirs), _missing(theirs, self.copy.vector)

    def stop(self) -> None:
        """Note that the node stops in order, so that it keeps its origin."""
        self.copy.stop()

    def write(self, edits: Iterable[Edit], token: str, now_ms: int) -> list[Send]:
        """Make edits and note the token, durably at once; return what all peers are to be told.

        Raises ValueError, and changes nothing, if an edit cannot be made.
        """
        return _to_all(self.copy.write(edits, token, now_ms))

    def joined(self, peer: str, now_ms: int) -> list[Send]:
        """A session with a peer has begun."""
        self._peers[peer] = {}
        return [self._greeting(peer, now_ms)]

    def left(self, peer: str) -> list[Send]:
        """The session with a peer has ended. Nothing is to be said."""
        self._peers.pop(peer, None)
        self._greeted_ms.pop(peer, None)
        self._compared.discard(peer)
        if self._pull is not None and self._pull.peer == peer:
            self._pull = None
        return []

    def receive(self, peer: str, message: Message, now_ms: int) -> Iterable[Send]:
        """Take what a peer says. What comes outside of a session is ignored.

        A large answer is made while it is taken: until then, nothing may change.
        """
        if peer not in self._peers:
            return []
        if isinstance(message, Hello):
            return self._on_hello(peer, message, now_ms)
        if isinstance(message, Push):
            return self._on_push(peer, message, now_ms)
        if isinstance(message, Pull):
            return self._on_pull(peer, message, now_ms)
        return self._on_answer(peer, message, now_ms)

    def tick(self, now_ms: int, rng: Rng) -> list[Send]:
        """Do what is due; to be called every sync interval."""
        sends: list[Send] = []
        if self._pull is not None and _is_over(self._pull.since_ms, ANSWER_MS, now_ms):
            self.counters.unanswered += 1
            self._peers[self._pull.peer] = {}  # another peer may know it as well
            self._pull = None
        if _is_over(self._dropped_ms, HOUR_MS, now_ms):
            self._dropped_ms = now_ms
            self._gone_position = self.copy.forget_gone(self._gone_position)
            if self.copy.drop(now_ms):
                self.counters.drops += 1
                sends.append(Send(None, self._hello(self.copy.vector)))
        sends += self._pull_next(now_ms)
        if self._peers:
            sends.append(Send(rng.choice(sorted(self._peers)), self._hello(None)))
        return sends

    # Greetings

    def _hello(self, vector: Vector | None) -> Hello:
        copy = self.copy
        generation: Generation = {} if vector is None else copy.generation
        ids = (copy.vector_id, copy.generation_id, copy.digest)
        return Hello(VERSIONS, copy.origin, *ids, vector, generation)

    def _greeting(self, peer: str, now_ms: int) -> Send:
        self._greeted_ms[peer] = now_ms
        return Send(peer, self._hello(self.copy.vector))

    def _refuse(self, peer: str, now_ms: int) -> list[Send]:
        """Answer cells, or a pull, of another generation."""
        self.counters.refused += 1
        is_due = _is_over(self._greeted_ms.get(peer), GREETING_GAP_MS, now_ms)
        return [self._greeting(peer, now_ms)] if is_due else []

    def _on_hello(self, peer: str, hello: Hello, now_ms: int) -> list[Send]:
        oldest, newest = hello.versions
        if oldest > VERSIONS[1] or newest < VERSIONS[0]:
            self.counters.incompatible += 1
            return []
        copy = self.copy
        if (hello.vector_id, hello.generation_id) == (copy.vector_id, copy.generation_id):
            copy.confirm(copy.own_head)
            self._peers[peer] = dict(copy.vector)
            self._compared.add(peer)
            self.is_level = True
            return [] if hello.digest == copy.digest else self._repair(peer, now_ms)
        if hello.vector is None:
            return [self._greeting(peer, now_ms)]
        sends = self._meet(peer, hello.vector, now_ms)
        if hello.generation_id != copy.generation_id:
            sends += self._meet_generation(peer, hello.vector, hello.generation, now_ms)
            if hello.generation_id != copy.generation_id:
                return sends
        return sends + self._compare(peer, hello.vector, now_ms)

    def _compare(self, peer: str, vector: Vector, now_ms: int) -> list[Send]:
        """Ask for what the peer has seen; let it ask if it has seen less."""
        if contradicts(self.copy.vector, vector):
            return self._repair(peer, now_ms)
        if lacks(self.copy.vector, vector):
            return self._begin_pull(peer, Wanted.UNSEEN, now_ms)
        self.is_level = True
        # Never answered by a greeting: the peer lacks something, so it pulls.
        return [self._greeting(peer, now_ms)] if lacks(vector, self.copy.vector) else []

    def _meet(self, peer: str, vector: Vector, now_ms: int) -> list[Send]:
        """Note what a peer has seen. If it knows another past of our origin, take a new one."""
        self._peers[peer] = dict(vector)
        self._compared.add(peer)
        own, theirs = self.copy.own_head, vector.get(self.copy.origin, NOTHING)
        if theirs == own:
            self.copy.confirm(own)
        elif theirs.seq >= own.seq:
            return self._renounce(now_ms)
        return []

    def _renounce(self, now_ms: int) -> list[Send]:
        self.counters.renounced += 1
        return _to_all(self.copy.renounce(now_ms))

    def _meet_generation(
        self, peer: str, vector: Vector, generation: Generation, now_ms: int
    ) -> list[Send]:
        """Meet another generation: take it over, start anew, or let the peer do so."""
        copy = self.copy
        if self._pull is not None and self._pull.peer == peer and not self._is_cloning():
            self._pull = None  # it will not be answered
        if self._may_adopt(generation):
            copy.adopt(generation)
            self.counters.adoptions += 1
            # Where we have dropped more than the peer, it has to meet ours.
            is_ours = copy.generation == generation
            return [] if is_ours else [self._greeting(peer, now_ms)]
        # If neither has seen all that the other has dropped, one of them starts anew.
        if covers(vector, copy.generation) or copy.generation_id < generation_id(generation):
            return self._begin_pull(peer, Wanted.CLONE, now_ms)
        return [self._greeting(peer, now_ms)]

    def _may_adopt(self, generation: Generation) -> bool:
        return covers(self.copy.vector, generation)

    def _repair(self, peer: str, now_ms: int) -> list[Send]:
        """Pull everything, because of a difference that must not be."""
        if not _is_over(self._repaired_ms, REPAIR_GAP_MS, now_ms):
            return []
        sends = self._begin_pull(peer, Wanted.ALL, now_ms)
        if sends:
            self.counters.divergences += 1
            self._repaired_ms = now_ms
        return sends

    # Transactions of others

    def _on_push(self, peer: str, push: Push, now_ms: int) -> list[Send]:
        copy = self.copy
        known = self._peers[peer]
        head = Head(push.seq, push.previous)  # its hash is not looked at
        known[push.origin] = max(known.get(push.origin, NOTHING), head)
        seen = copy.vector.get(push.origin, NOTHING)
        if push.origin == copy.origin:
            return self._renounce(now_ms) if push.seq > seen.seq else []
        if self._is_foreign(push.generation_id):
            return self._refuse(peer, now_ms)
        if push.seq <= seen.seq:
            self.counters.duplicates += 1
            return []
        if not self._is_next(push, seen):
            self.counters.gaps += 1
            return self._begin_pull(peer, Wanted.UNSEEN, now_ms)
        if self._is_of_another_past(push, seen):
            return self._repair(peer, now_ms)
        copy.take_push(push, now_ms)
        self.counters.pushes += 1
        return []

    def _is_foreign(self, generation_id: bytes) -> bool:
        return generation_id != self.copy.generation_id

    def _is_next(self, push: Push, seen: Head) -> bool:
        return push.seq == seen.seq + 1

    def _is_of_another_past(self, push: Push, seen: Head) -> bool:
        return push.previous != seen.chain

    # Pulls

    def _begin_pull(self, peer: str, wanted: Wanted, now_ms: int) -> list[Send]:
        """Pull, unless a pull is under way: then the next greeting or its end asks again."""
        if self._pull is not None:
            return []
        self.counters.pulls += 1
        self._last_number = max(self._last_number + 1, now_ms)
        self._pull = _Pull(peer, self._last_number, wanted, now_ms)
        copy = self.copy
        return [Send(peer, Pull(self._last_number, wanted, copy.generation_id, copy.vector))]

    def _pull_next(self, now_ms: int) -> list[Send]:
        """Pull from a peer that is known to have seen more."""
        for peer, vector in sorted(self._peers.items()):
            if lacks(self.copy.vector, vector):
                return self._begin_pull(peer, Wanted.UNSEEN, now_ms)
        return []

    def _on_pull(self, peer: str, pull: Pull, now_ms: int) -> Iterable[Send]:
        if pull.wanted is not Wanted.CLONE and self._is_foreign(pull.generation_id):
            return self._refuse(peer, now_ms)
        sends = self._meet(peer, pull.vector, now_ms)
        self.counters.served += 1
        return chain(sends, self._answer(peer, pull, now_ms))

    def _answer(self, peer: str, pull: Pull, now_ms: int) -> Iterator[Send]:
        """Yield the parts of an answer, which are made one by one, and ask for what is missing."""
        copy = self.copy
        cells = copy.beyond(pull.vector if pull.wanted is Wanted.UNSEEN else {})
        for number, (part, is_last) in enumerate(parts_of(cells)):
            vector = copy.vector if is_last else None
            answer = Cells(pull.number, number, copy.generation_id, part, vector)
            if pull.wanted is Wanted.CLONE:
                generation: Generation = copy.generation if is_last else {}
                yield Send(peer, Reset(*answer, generation, copy.clock))
            else:
                yield Send(peer, answer)
        if pull.wanted is Wanted.ALL:
            yield from self._repair(peer, now_ms)
        elif pull.wanted is Wanted.UNSEEN and lacks(copy.vector, pull.vector):
            yield from self._begin_pull(peer, Wanted.UNSEEN, now_ms)

    def _is_cloning(self) -> bool:
        return self._pull is not None and self._pull.wanted is Wanted.CLONE

    def _on_answer(self, peer: str, answer: Cells | Reset, now_ms: int) -> list[Send]:
        pull = self._pull
        is_asked = pull is not None and (peer, answer.number) == (pull.peer, pull.number)
        if pull is None or not is_asked or isinstance(answer, Reset) != self._is_cloning():
            self.counters.stale += 1
            return []
        if isinstance(answer, Cells) and self._is_foreign(answer.generation_id):
            self._pull = None
            return self._refuse(peer, now_ms)
        if answer.part < pull.parts:
            self.counters.stale += 1
            return []
        if answer.part > pull.parts:  # one was lost: the next tick asks anew
            self._pull = None
            return []
        if answer.vector is None or isinstance(answer, Reset):
            self.copy.stage(answer.cells, is_first=answer.part == 0)
        pull.parts += 1
        pull.since_ms = now_ms
        if answer.vector is None:
            return []
        self._pull = None
        self.counters.answers += 1
        sends = self._meet(peer, answer.vector, now_ms)
        if isinstance(answer, Reset):
            copied = (answer.vector, answer.generation, answer.clock)
            sends += _to_all(self.copy.clone(*copied, now_ms))
            self.counters.resets += 1
        else:
            is_whole = answer.part == 0
            self.copy.take_answer(answer.cells, answer.vector, now_ms, is_whole)
        self.is_level = True
        return sends + self._pull_next(now_ms)


def _missing(vector: Vector, other: Vector) -> int:
    """Return how many transactions another vector covers and this one does not."""
    return sum(max(0, head.seq - vector.get(origin, NOTHING).seq) for origin, head in other.items())


def _to_all(pushes: Iterable[Push]) -> list[Send]:
    return [Send(None, push) for push in pushes]


def _is_over(since_ms: int | None, gap_ms: int, now_ms: int) -> bool:
    """Return whether some time has passed, or cannot be told because the clock was set back."""
    return since_ms is None or not since_ms <= now_ms < since_ms + gap_ms
