"""The machine: hears messages and the clock, says what to send and what has happened.

Invariants:
* An accusation is refuted, never outvoted: only the member itself raises its incarnation.
* A node that stood still, or sees signs that it is slow, doubts itself first: after a pause it
  judges nobody by what it has missed.
* To hear from a member is no evidence that it is up: that is what its own record says. Whoever is
  believed to be gone is told so with the next message, and refutes.
* No notice is answered by a notice of the same kind, and each answers one member once a period.
* A machine that has left, or whose node id another process has taken, sends nothing.

Every message was authenticated before; who sent it, and at which instance, is known for sure to
be some member that holds the cluster key.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeproxy.core.cluster.swim.events import Event, EventKind, kinds_of
from edgeproxy.core.cluster.swim.lists import Lists
from edgeproxy.core.cluster.swim.messages import (
    Ack,
    Gossip,
    Message,
    Nack,
    Page,
    Ping,
    PingRequest,
    Pull,
)
from edgeproxy.core.cluster.swim.probing.prober import Prober
from edgeproxy.core.cluster.swim.records import Address, Record, State, fits
from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.roster import Change, Roster
from edgeproxy.core.cluster.swim.tuning import (
    ANSWER_EVERY,
    FORGET_EVERY,
    GOSSIP_EVERY,
    GOSSIP_TO,
    JOIN_OWN,
    LATE_SECS,
    LEAVE_ROUNDS,
    MAX_INCARNATION,
    MAX_PAYLOAD_BYTES,
    PAUSE,
    SECOND_OPINIONS,
    TELLS_DEAD,
    Tuning,
)
from edgeproxy.core.cluster.swim.voice import Send, Voice


class Membership:
    """The membership of one start of one node.

    Attributes:
        roster: All other members.
    """

    def __init__(
        self,
        me: Record,
        tuning: Tuning,
        rng: Rng,
        now: float,
        known: Iterable[Record] = (),
    ) -> None:
        """Begin as `me`. `known` are records that an earlier start had: members to look for."""
        assert fits(me)
        self.roster = Roster(tuning)
        self._tuning = tuning
        self._rng = rng
        self._voice = Voice(me, self.roster, rng, tuning.period_secs)
        self._prober = Prober(self._voice, self.roster, tuning, rng, now)
        self._lists = Lists(self._voice, self.roster, tuning, rng, now)
        self._ticked_at = now - tuning.tick_secs
        self._gossip_at = self._forget_at = now
        self._told_older_at = float("-inf")
        self._rounds_left: int | None = None
        self._voice.rumours.tell(me)
        for record in known:
            self._hear(record, now, me.gossip, is_listed=True)

    @property
    def me(self) -> Record:
        """What this node says about itself."""
        return self._voice.me

    @property
    def is_silent(self) -> bool:
        """Whether it has left, or has given way: it sends nothing any longer."""
        return self._voice.is_silent

    @property
    def health(self) -> int:
        """How little this node trusts itself: 0 is well, 8 the worst."""
        return self._prober.health.score

    def show(self, payload: bytes) -> None:
        """Show something to all others, on every ping and answer."""
        assert len(payload) <= MAX_PAYLOAD_BYTES
        self._voice.payload = payload

    def meet(self, addresses: Iterable[Address], now: float) -> None:
        """Take what the bootstrap names lead to now."""
        self._lists.contacts.replace(addresses, now)

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        return self._voice.take_events()

    def leave(self) -> None:
        """Tell others that this node goes; `is_silent` when that is done, within a period."""
        if self._rounds_left is None:
            self._rounds_left = LEAVE_ROUNDS
            self._voice.me = self.me.as_state(State.LEFT)
            self._voice.rumours.tell(self.me)

    def forget(self, node_id: str, now: float) -> bool:
        """Let all take a dead member for one that has left; return whether it was dead."""
        member = self.roster.members.get(node_id)
        if member is None or member.state != State.DEAD:
            return False
        self._hear(member.record.as_state(State.LEFT, self.me.node_id), now, self.me.gossip)
        return True

    def tick(self, now: float, wall_ms: int) -> list[Send]:
        """Do what is due; to be called every `Tuning.tick_secs`."""
        if self.is_silent:
            return []
        self._mind_standstill(now)
        if self._rounds_left is None:
            accusation = self._prober.go_on(now, wall_ms)
            if accusation is not None:
                self._hear(accusation, now, self.me.gossip)
            for suspect in self.roster.suspects_to_bury(now):
                self._changed(self.roster.bury(suspect, self.me.node_id, now))
            self._lists.go_on(now)
            if now >= self._forget_at:
                self._forget_at = now + FORGET_EVERY * self._tuning.period_secs
                self.roster.forget_old(now)
        if now >= self._gossip_at:
            self._gossip_at = now + GOSSIP_EVERY * self._tuning.period_secs
            self._gossip(now)
        return self._voice.take_sends()

    def receive(
        self, now: float, wall_ms: int, source: Address, instance: int, message: Message
    ) -> list[Send]:
        """Hear a message that `instance` of `message.from_id` has sent from `source`."""
        if self.is_silent or self._rounds_left is not None:
            return []
        if message.from_id == self.me.node_id:
            self._hear_own_id(now, source, instance, message)
            return self._voice.take_sends()
        member = self.roster.members.get(message.from_id)
        if member is not None and instance < member.record.instance:
            return self.receive_stale(now, source, message.from_id, instance)
        if not isinstance(message, Nack):
            for told in message.records:
                is_own = told.node_id == message.from_id
                record = told.reached_at(source) if is_own else told
                if record.has_addresses:
                    self._hear(record, now, source, is_listed=isinstance(message, Page))
        self._respond(now, wall_ms, source, instance, message)
        member = self.roster.members.get(message.from_id)
        if member is None or instance > member.record.instance:
            self._lists.wonder(source, message.from_id, now)
        return self._voice.take_sends()

    def receive_stale(self, now: float, source: Address, node_id: str, instance: int) -> list[Send]:
        """Hear from an earlier start of a member: tell it, if it still runs, that it is replaced.

        It may also be a recorded datagram. So nothing it says is heard, and one answer a period
        is all that it gets.
        """
        member = self.roster.members.get(node_id)
        is_replaced = member is not None and instance < member.record.instance
        if member is not None and is_replaced and self._rounds_left is None:
            self._voice.answer(member, now, source, member.record)
        return self._voice.take_sends()

    def _respond(
        self, now: float, wall_ms: int, source: Address, instance: int, message: Message
    ) -> None:
        if isinstance(message, Ping):
            self._prober.pinged(wall_ms, source, instance, message)
        elif isinstance(message, Ack):
            self._prober.acknowledged(now, wall_ms, instance, message)
        elif isinstance(message, PingRequest):
            self._prober.asked_to_help(now, wall_ms, source, message)
        elif isinstance(message, Nack):
            self._prober.not_acknowledged(message)
        elif isinstance(message, Pull):
            self._lists.asked(now, source, message)
        elif isinstance(message, Page):
            self._lists.turn(now, source, message)

    def _mind_standstill(self, now: float) -> None:
        late = now - self._ticked_at - self._tuning.tick_secs
        self._ticked_at = now
        if late <= LATE_SECS:
            return
        self._prober.health.worse()
        if late > PAUSE * self._tuning.period_secs:
            self._prober.begin_anew(now)
            self.roster.give_time(now, None)
        else:
            self._prober.excuse(late)
            self.roster.give_time(now, late)

    def _hear(
        self, record: Record, now: float, source: Address, *, is_listed: bool = False
    ) -> None:
        if record.state > State.LEFT:
            return
        if record.node_id == self.me.node_id:
            self._hear_about_me(record)
            return
        change = self.roster.take(record, now, is_listed=is_listed)
        if change is not None:
            self._changed(change)
        elif record.state == State.ALIVE:
            member = self.roster.members.get(record.node_id)
            if member is not None and member.record.key > record.key:
                for accusation in self._voice.accusation(member.record):
                    self._voice.answer(member, now, source, accusation)

    def _hear_about_me(self, record: Record) -> None:
        if record.instance > self.me.instance:
            self._give_way(record)
        elif record.life < self.me.life:
            if self.me.node_id not in self._voice.rumours:
                self._voice.rumours.tell(self.me)
        elif record.state != State.ALIVE and record.incarnation < MAX_INCARNATION:
            self._voice.me = self.me.refuting(record.incarnation)
            self._voice.rumours.tell(self.me)
            self._voice.report(EventKind.REFUTED, self.me)
            self._prober.health.worse()

    def _hear_own_id(self, now: float, source: Address, instance: int, message: Message) -> None:
        """Hear a process with this node's id: this one, an older or a newer one."""
        if instance > self.me.instance:
            records = () if isinstance(message, Nack) else message.records
            own = [each for each in records if each.node_id == self.me.node_id]
            self._give_way(own[0] if own else self.me)
        elif instance < self.me.instance:
            if now >= self._told_older_at + ANSWER_EVERY * self._tuning.period_secs:
                self._told_older_at = now
                self._voice.send(source, Gossip(self.me.node_id, (self.me,)))
        elif isinstance(message, Pull):
            contact = self._lists.contacts.asked_as(message.seq)
            if contact is not None:
                contact.ask_at = now + JOIN_OWN * self._tuning.period_secs

    def _give_way(self, other: Record) -> None:
        if not self._voice.is_silent:
            self._voice.is_silent = True
            self._voice.report(EventKind.DUPLICATE_NODE_ID, other)

    def _changed(self, change: Change) -> None:
        before, after = change
        for kind in kinds_of(before, after):
            self._voice.report(kind, after)
            if kind is EventKind.UP:
                self._prober.order.add(after.node_id)
            if kind is EventKind.SUSPECTED and self._gives_second_opinion(after):
                self._prober.order.hasten(after.node_id)
        is_anew = before is not None and before.instance < after.instance
        if before is not None and is_anew and before.gossip != after.gossip:
            # An earlier process that still runs there has to know that its id is taken.
            self._voice.send(before.gossip, Gossip(self.me.node_id, (after,)))
        self._voice.rumours.tell(after)

    def _gives_second_opinion(self, suspect: Record) -> bool:
        is_own = suspect.accuser == self.me.node_id
        return not is_own and self._rng.random() * self.roster.size() < SECOND_OPINIONS

    def _gossip(self, now: float) -> None:
        if self._rounds_left is not None:
            self._voice.is_silent = self._rounds_left == 0
            self._rounds_left -= 1
        if not self._voice.rumours:
            return
        secs = TELLS_DEAD * self._tuning.period_secs
        told = [
            member.record
            for member in self.roster.members.values()
            if member.is_live or (member.state == State.DEAD and now - member.since < secs)
        ]
        for record in self._rng.sample(told, min(GOSSIP_TO, len(told))):
            if self._voice.rumours:
                message = Gossip(self.me.node_id, self._voice.news(record))
                self._voice.send(record.gossip, message)
