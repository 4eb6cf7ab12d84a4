"""Which member is in which state, as far as this node knows.

Invariants:
* What is held about a member never goes back in (instance, incarnation, state). So a message that
  is repeated, late or recorded long ago changes nothing.
* Nobody is dead here who was not suspected here first, unless it was dead when it was first heard
  of. So whoever is up can refute.
* Lists that are pulled only ever suspect: they may come from the other side of a partition.
* At most `MAX_MEMBERS`; those gone longest give way, those that are up never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.core.cluster.swim.probing.round_trip import RoundTrip
from edgeproxy.core.cluster.swim.records import Record, State
from edgeproxy.core.cluster.swim.suspicion import Suspicion
from edgeproxy.core.cluster.swim.tuning import (
    DEAD_KEPT_SECS,
    LEFT_KEPT_SECS,
    MAX_MEMBERS,
    Tuning,
    confirmations_wanted,
)

ALIVE, SUSPECT, DEAD, LEFT = State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT

BELIEVED: Mapping[tuple[State, State], State] = {
    (ALIVE, ALIVE): ALIVE,
    (ALIVE, SUSPECT): SUSPECT,
    (ALIVE, DEAD): SUSPECT,
    (ALIVE, LEFT): LEFT,
    (SUSPECT, ALIVE): ALIVE,
    (SUSPECT, SUSPECT): SUSPECT,
    (SUSPECT, DEAD): SUSPECT,
    (SUSPECT, LEFT): LEFT,
    (DEAD, ALIVE): ALIVE,
    (DEAD, SUSPECT): SUSPECT,
    (DEAD, DEAD): DEAD,
    (DEAD, LEFT): LEFT,
    (LEFT, ALIVE): ALIVE,
    (LEFT, SUSPECT): SUSPECT,
    (LEFT, DEAD): DEAD,
    (LEFT, LEFT): LEFT,
}
"""What a newer record makes of a member: (the state held, the state heard) -> the state believed.

A death of the very life that is suspected is not in the table: it is believed, unless it is from a
list (`_accused_again`).
"""

_KEPT_SECS = {DEAD: DEAD_KEPT_SECS, LEFT: LEFT_KEPT_SECS}


class Member:
    """Another member.

    Attributes:
        record: What is held about it.
        since: When it came to be in its state.
        suspicion: While it is suspected.
        payload: What it last showed of itself.
        round_trip: The path to it and its clock.
        answered_at: When an accusation or a taken id was last answered to it.
    """

    __slots__ = ("answered_at", "payload", "record", "round_trip", "since", "suspicion")

    def __init__(self, record: Record, now: float) -> None:
        self.record = record
        self.since = now - record.age_secs
        self.suspicion: Suspicion | None = None
        self.payload = b""
        self.round_trip = RoundTrip()
        self.answered_at = float("-inf")

    @property
    def state(self) -> State:
        """The state that it is held to be in."""
        return State(self.record.state)

    @property
    def is_live(self) -> bool:
        """Whether it counts as a member: suspects do."""
        return self.record.state <= SUSPECT


class Change(NamedTuple):
    """What a record changed: what was held before, None if nothing, and what is held now."""

    before: Record | None
    after: Record


class Roster:
    """All members but this node itself."""

    def __init__(self, tuning: Tuning) -> None:
        self.members: dict[str, Member] = {}
        self.refused = 0
        self._tuning = tuning
        self._live: list[Member] | None = None

    def live(self) -> list[Member]:
        """Return those that are alive or suspected."""
        if self._live is None:
            self._live = [member for member in self.members.values() if member.is_live]
        return self._live

    def size(self) -> int:
        """Return how many are up, with this node."""
        return len(self.live()) + 1

    def take(self, record: Record, now: float, *, is_listed: bool = False) -> Change | None:
        """Believe a record if it is news; return what it changed. `is_listed`: from a `Page`."""
        member = self.members.get(record.node_id)
        if member is None:
            return self._enter(record, now)
        held = member.record
        is_accused = held.state == SUSPECT and record.state in (SUSPECT, DEAD)
        if is_accused and record.life == held.life:
            return self._accused_again(member, record, now, is_listed=is_listed)
        if record.key <= held.key:
            return None
        state = BELIEVED[member.state, State(record.state)]
        believed = record if state == record.state else record.as_state(state, record.accuser)
        self._hold(member, believed, now)
        if record.state == DEAD and member.suspicion and not is_listed:
            member.suspicion.confirm_wholly()
        return Change(held, believed)

    def suspects_to_bury(self, now: float) -> list[Member]:
        """Return those that have not refuted in time."""
        return [
            member
            for member in self.live()
            if member.suspicion is not None and member.suspicion.ends_at() <= now
        ]

    def bury(self, member: Member, accuser: str, now: float) -> Change:
        """A suspect is dead."""
        held = member.record
        self._hold(member, held.as_state(DEAD, accuser), now)
        return Change(held, member.record)

    def give_time(self, now: float, secs: float | None) -> None:
        """This node stood still: let suspects refute for so much longer, None: all over again."""
        for member in self.live():
            if member.suspicion is not None:
                start = now if secs is None else min(now, member.suspicion.started_at + secs)
                member.suspicion.started_at = start

    def forget_old(self, now: float) -> None:
        """Forget those that have been gone for long."""
        for node_id, member in list(self.members.items()):
            if not member.is_live and now - member.since > _KEPT_SECS[member.state]:
                del self.members[node_id]

    def listed(self, member: Member, now: float) -> Record:
        """Return the record of a member for a list: with how long it has been gone."""
        if member.is_live:
            return member.record
        return member.record.as_state(
            member.state, member.record.accuser, age_secs=max(0, int(now - member.since))
        )

    def _enter(self, record: Record, now: float) -> Change | None:
        state = State(record.state)
        if record.age_secs > _KEPT_SECS.get(state, record.age_secs):
            return None
        if len(self.members) + 1 >= MAX_MEMBERS and not self._make_room():
            self.refused += 1
            return None
        member = self.members[record.node_id] = Member(record, now)
        self._hold(member, record, now)
        return Change(None, record)

    def _make_room(self) -> bool:
        gone = [member for member in self.members.values() if not member.is_live]
        if not gone:
            return False
        longest = min(gone, key=lambda member: (member.state != LEFT, member.since))
        del self.members[longest.record.node_id]
        return True

    def _accused_again(
        self, member: Member, record: Record, now: float, *, is_listed: bool
    ) -> Change | None:
        held, suspicion = member.record, member.suspicion
        assert suspicion is not None
        if record.state == DEAD:
            if is_listed:
                return None
            self._hold(member, record, now)
            return Change(held, record)
        if not suspicion.confirm(record.accuser):
            return None
        member.record = record
        return Change(held, record)

    def _hold(self, member: Member, record: Record, now: float) -> None:
        if record.instance != member.record.instance:
            member.payload, member.round_trip = b"", RoundTrip()
        if record.state != member.record.state:
            member.since = now - record.age_secs
        member.record = record
        member.suspicion = None
        if record.state == SUSPECT:
            member.suspicion = Suspicion(
                record.accuser,
                now,
                self._tuning.suspicion_secs(self.size()),
                confirmations_wanted(self.size()),
            )
        self._live = None
