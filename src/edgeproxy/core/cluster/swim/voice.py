"""What this node says: its own record, the news it tells, and the messages that are to be sent.

Every message to a member that is believed to be suspect, dead or gone tells it so first: it learns
of an accusation from whoever speaks to it, and refutes (Lifeguard's buddy system).
"""

from __future__ import annotations

from typing import NamedTuple

from edgeproxy.core.cluster.swim.events import Event, EventKind
from edgeproxy.core.cluster.swim.messages import Gossip, Message, Records
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.roster import Member, Roster
from edgeproxy.core.cluster.swim.rumours import Rumours
from edgeproxy.core.cluster.swim.tuning import ANSWER_EVERY, retransmits


class Send(NamedTuple):
    """A message to be sent."""

    address: Address
    message: Message


class Voice:
    """What this node says.

    Attributes:
        me: What it says about itself.
        payload: What it shows of itself, opaque.
        is_silent: Whether it says nothing any longer.
    """

    def __init__(self, me: Record, roster: Roster, rng: Rng, period_secs: float) -> None:
        self.me = me
        self.payload = b""
        self.is_silent = False
        self.rumours = Rumours()
        self._roster = roster
        self._period_secs = period_secs
        self._seq = rng.getrandbits(31)
        self._events: list[Event] = []
        self._sends: list[Send] = []

    @property
    def node_id(self) -> str:
        """The id of this node."""
        return self.me.node_id

    def next_seq(self) -> int:
        """Return a number for a question; it begins anywhere, so no old answer fits."""
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        return self._seq

    def send(self, address: Address, message: Message) -> None:
        """Send a message with the next ones."""
        self._sends.append(Send(address, message))

    def report(self, kind: EventKind, record: Record, payload: bytes = b"") -> None:
        """Tell whoever runs this what has happened."""
        self._events.append(Event(kind, record, payload))

    def news(self, to: Record | None, *, of_me: bool = False) -> Records:
        """Return what the next message to a member tells. `of_me`: it has this node wrong."""
        first = (self.me, *self.accusation(to)) if of_me else self.accusation(to)
        return self.rumours.pick(retransmits(self._roster.size()), first)

    def accusation(self, record: Record | None) -> Records:
        """Return what a member has to be told first: that it is believed to be gone."""
        if record is None or record.state == State.ALIVE:
            return ()
        if record.state == State.LEFT:
            return (record,)
        return (record.as_state(State.SUSPECT, record.accuser),)

    def answer(self, member: Member, now: float, source: Address, record: Record) -> None:
        """Answer what a member says with what is known better, once a period."""
        if now - member.answered_at >= ANSWER_EVERY * self._period_secs:
            member.answered_at = now
            self.send(source, Gossip(self.node_id, (record,)))

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    def take_sends(self) -> list[Send]:
        """Return what is to be sent."""
        sends, self._sends = self._sends, []
        return [] if self.is_silent else sends
