"""Probes one member after the other, answers probes, and helps with those of others.

A probe that fails is an accusation, nothing more: `go_on` returns it, and the suspect may refute.
What this node shows of itself rides on pings and their answers.
"""

from __future__ import annotations

from edgeproxy.core.cluster.swim.events import EventKind
from edgeproxy.core.cluster.swim.messages import Ack, Nack, Ping, PingRequest
from edgeproxy.core.cluster.swim.probing.local_health import LocalHealth
from edgeproxy.core.cluster.swim.probing.probe import Probe, ProbeOrder
from edgeproxy.core.cluster.swim.probing.relays import Relay, Relays
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.rng import Rng
from edgeproxy.core.cluster.swim.roster import Member, Roster
from edgeproxy.core.cluster.swim.tuning import (
    HELPERS,
    NACK_AFTER_PERIODS,
    PERIOD_JITTER,
    SUSPECT_ASKED_AFTER,
    SUSPECT_ASKED_EVERY,
    Tuning,
)
from edgeproxy.core.cluster.swim.voice import Voice


class Prober:
    """The probes of one node.

    Attributes:
        health: How far this node trusts itself.
        order: Who is probed next.
    """

    def __init__(self, voice: Voice, roster: Roster, tuning: Tuning, rng: Rng, now: float) -> None:
        self.health = LocalHealth()
        self.order = ProbeOrder(rng)
        self._voice = voice
        self._roster = roster
        self._period_secs = tuning.period_secs
        self._heal_secs = tuning.heal_secs
        self._rng = rng
        self._relays = Relays()
        self._probe: Probe | None = None
        self._begin_at = now + self._period_secs * rng.random()
        self._heal_at = now

    def go_on(self, now: float, wall_ms: int) -> Record | None:
        """Do what is due; return the accusation if a probe has failed."""
        for relay in self._relays.to_refuse(now):
            self._voice.send(relay.asker, Nack(self._voice.node_id, relay.asker_seq))
        self._heal(now, wall_ms)
        self._ask_suspects(now, wall_ms)
        probe, accusation = self._probe, None
        if probe is not None and now >= probe.ends_at:
            accusation = self._failed(probe)
            probe = None
        if probe is None and now >= self._begin_at:
            probe = self._begin(now)
        if probe is None:
            return accusation
        target = self._roster.members.get(probe.target_id)
        if target is None or not target.is_live:
            self._probe = None
            return accusation
        if now >= probe.send_at:
            self.ping(target, probe.seq, probe.sent(now), wall_ms)
        if now >= probe.ask_at:
            self._ask_helpers(probe, target)
        return accusation

    def excuse(self, secs: float) -> None:
        """This node stood still for so long: answers may come so much later."""
        self._begin_at += secs
        if self._probe is not None:
            self._probe.excuse(secs)

    def begin_anew(self, now: float) -> None:
        """This node stood still for long: judge nobody by the probe that ran."""
        self._probe = None
        self._begin_at = now + self._period_secs * self._rng.random()
        self._relays.clear()

    def ping(self, target: Member, seq: int, attempt: int, wall_ms: int) -> None:
        """Ask a member whether it is up."""
        voice, record = self._voice, target.record
        head = (voice.node_id, record.node_id, seq, attempt, wall_ms)
        voice.send(record.gossip, Ping(*head, voice.payload, voice.news(record)))

    def pinged(self, wall_ms: int, source: Address, instance: int, ping: Ping) -> None:
        """Answer, if it is this node that is asked."""
        voice = self._voice
        if ping.to_id != voice.node_id:
            return
        self._see(ping.from_id, instance, ping.payload)
        sender = self._roster.members.get(ping.from_id)
        is_accused = any(record.node_id == voice.node_id for record in ping.records)
        news = voice.news(sender.record if sender else None, of_me=is_accused)
        head = (voice.node_id, ping.seq, ping.attempt, ping.wall_ms, wall_ms)
        voice.send(source, Ack(*head, voice.payload, news))

    def acknowledged(self, now: float, wall_ms: int, instance: int, ack: Ack) -> None:
        """Take an answer: to the probe that runs, or one to be passed on."""
        relay = self._relays.answered(ack.seq, ack.from_id)
        if relay is not None:
            passed_on = Ack(self._voice.node_id, relay.asker_seq, 0, 0, wall_ms)
            self._voice.send(relay.asker, passed_on)
        probe = self._probe
        is_direct = probe is not None and ack.from_id == probe.target_id
        if is_direct or relay is not None:
            self._see(ack.from_id, instance, ack.payload)
        if probe is None or probe.seq != ack.seq:
            return
        if is_direct:
            self._measure(probe, now, wall_ms, ack)
        elif ack.from_id not in probe.helpers:
            return
        self._probe = None
        self.health.better()

    def not_acknowledged(self, nack: Nack) -> None:
        """Note that a helper can be reached."""
        if self._probe is not None and self._probe.seq == nack.seq:
            self._probe.nacks.add(nack.from_id)

    def asked_to_help(
        self, now: float, wall_ms: int, source: Address, request: PingRequest
    ) -> None:
        """Ping on behalf of another, if the target is known."""
        target = self._roster.members.get(request.target_id)
        if target is None:
            return
        seq = self._voice.next_seq()
        relay = Relay(
            source, request.seq, request.target_id, now + NACK_AFTER_PERIODS * self._period_secs
        )
        if self._relays.begin(seq, relay):
            self.ping(target, seq, 0, wall_ms)

    def _begin(self, now: float) -> Probe | None:
        secs = self._period_secs * self.health.factor()
        secs *= self._rng.uniform(1 - PERIOD_JITTER, 1 + PERIOD_JITTER)
        self._begin_at = now + secs
        node_id = self.order.next([member.record.node_id for member in self._roster.live()])
        if node_id is None:
            return None
        resend_secs = self._roster.members[node_id].round_trip.resend_secs()
        self._probe = Probe(node_id, self._voice.next_seq(), now, secs, resend_secs)
        return self._probe

    def _ask_helpers(self, probe: Probe, target: Member) -> None:
        voice = self._voice
        probe.ask_at = probe.ends_at
        able = [each for each in self._roster.live() if each.state == State.ALIVE]
        able = [each for each in able if each is not target]
        for helper in self._rng.sample(able, min(HELPERS, len(able))):
            probe.helpers.add(helper.record.node_id)
            news = voice.news(helper.record)
            request = PingRequest(voice.node_id, probe.target_id, probe.seq, news)
            voice.send(helper.record.gossip, request)

    def _failed(self, probe: Probe) -> Record | None:
        self._probe = None
        if len(probe.nacks) < max(1, len(probe.helpers)):
            self.health.worse()
        target = self._roster.members.get(probe.target_id)
        if target is None or not target.is_live:
            return None
        return target.record.as_state(State.SUSPECT, self._voice.node_id)

    def _measure(self, probe: Probe, now: float, wall_ms: int, ack: Ack) -> None:
        secs = probe.round_trip_secs(ack.attempt, now)
        target = self._roster.members.get(ack.from_id)
        if secs is not None and target is not None:
            offset_ms = ack.wall_ms - (ack.ping_wall_ms + wall_ms) / 2
            target.round_trip.take(secs, offset_ms)

    def _see(self, node_id: str, instance: int, payload: bytes) -> None:
        member = self._roster.members.get(node_id)
        if member is None or member.record.instance != instance or member.payload == payload:
            return
        member.payload = payload
        self._voice.report(EventKind.SHOWN, member.record, payload)

    def _ask_suspects(self, now: float, wall_ms: int) -> None:
        """Ask those whose refutation should be here by now: it may have been lost."""
        for member in self._roster.live():
            suspicion = member.suspicion
            if suspicion is None:
                continue
            first = suspicion.started_at + SUSPECT_ASKED_AFTER * self._period_secs
            if now >= max(first, suspicion.asked_at + SUSPECT_ASKED_EVERY * self._period_secs):
                suspicion.asked_at = now
                self.ping(member, self._voice.next_seq(), 0, wall_ms)

    def _heal(self, now: float, wall_ms: int) -> None:
        """Ping one of the dead now and then: whoever is up after all refutes its death."""
        if now < self._heal_at:
            return
        secs = self._heal_secs(self._roster.size())
        self._heal_at = now + secs * self._rng.uniform(0.5, 1.5)
        dead = [each for each in self._roster.members.values() if each.state == State.DEAD]
        if dead:
            self.ping(self._rng.choice(dead), self._voice.next_seq(), 0, wall_ms)
