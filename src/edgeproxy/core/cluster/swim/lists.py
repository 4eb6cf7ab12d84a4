"""Pulls the list of members from others, and gives it to those who ask.

Gossip alone reaches all that are there with high probability. The list is for those that were not
there: new members, and those behind a partition.
"""

from __future__ import annotations

from edgeproxy.core.cluster.swim.messages import Page, Pull
from edgeproxy.core.cluster.swim.pulls import Contact, Contacts, PagePull
from edgeproxy.core.cluster.swim.records import Address, Record, State, encoded_bytes
from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.roster import Roster
from edgeproxy.core.cluster.swim.tuning import MAX_RECORDS_BYTES, Tuning
from edgeproxy.core.cluster.swim.voice import Voice


class Lists:
    """The lists that one node asks for and gives.

    Attributes:
        contacts: The bootstrap addresses.
    """

    def __init__(self, voice: Voice, roster: Roster, tuning: Tuning, rng: Rng, now: float) -> None:
        self.contacts = Contacts(rng)
        self._voice = voice
        self._roster = roster
        self._tuning = tuning
        self._rng = rng
        self._pull: PagePull | None = None
        self._pull_at = now + tuning.pull_secs(1) * rng.random()

    def go_on(self, now: float) -> None:
        """Ask whom it is time to ask."""
        period_secs = self._tuning.period_secs
        for contact in self.contacts.due(now, period_secs, self._is_up):
            contact.seq = self._voice.next_seq()
            self._ask(contact.address, contact.seq, "", None)
        if self._pull is None and now >= self._pull_at:
            self._pull_at = now + self._tuning.pull_secs(self._roster.size())
            alive = [each for each in self._roster.live() if each.state == State.ALIVE]
            if alive:
                record = self._rng.choice(alive).record
                self._pull = PagePull(record.gossip, record.node_id, now)
        pull = self._pull
        if pull is None or now < pull.ask_at:
            return
        if pull.is_given_up(now):
            self._pull = None
            return
        pull.asked(self._voice.next_seq(), now, period_secs)
        member = self._roster.members.get(pull.node_id)
        self._ask(pull.address, pull.seq, pull.after, member.record if member else None)

    def wonder(self, source: Address, node_id: str, now: float) -> None:
        """Ask a sender that is not known for its list, which begins with itself."""
        if self._pull is None:
            self._pull = PagePull(source, node_id, now)

    def asked(self, now: float, source: Address, pull: Pull) -> None:
        """Give a page: this node itself, then the members by their ids."""
        records = [] if pull.after else [self._voice.me]
        room = MAX_RECORDS_BYTES - sum(map(encoded_bytes, records))
        after = ""
        for node_id in sorted(each for each in self._roster.members if each > pull.after):
            record = self._roster.listed(self._roster.members[node_id], now)
            room -= encoded_bytes(record)
            if room < 0:
                break
            records.append(record)
            after = node_id
        else:
            after = ""
        self._voice.send(source, Page(self._voice.node_id, pull.seq, after, tuple(records)))

    def turn(self, now: float, source: Address, page: Page) -> None:
        """Take note of a page, whose records were heard; the next one is asked for."""
        contact, pull = self.contacts.asked_as(page.seq), self._pull
        if contact is not None:
            contact.node_id = page.from_id
            if page.after:
                self._pull = pull or PagePull(source, page.from_id, now, page.after)
        elif pull is not None and pull.seq == page.seq:
            self._pull = None
            if page.after > pull.after:
                self._pull = PagePull(pull.address, page.from_id, now, page.after)

    def _is_up(self, contact: Contact) -> bool:
        member = self._roster.members.get(contact.node_id)
        if member is not None and member.is_live:
            return True
        return any(each.record.gossip == contact.address for each in self._roster.live())

    def _ask(self, address: Address, seq: int, after: str, to: Record | None) -> None:
        records = (self._voice.me, *self._voice.accusation(to))
        padding = bytes(max(0, MAX_RECORDS_BYTES - sum(map(encoded_bytes, records))))
        self._voice.send(address, Pull(self._voice.node_id, seq, after, records, padding))
