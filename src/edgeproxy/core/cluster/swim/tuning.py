"""Every number that membership can be tuned by, and where it comes from.

Times are in probe periods unless the name says otherwise: all of them scale with
`EDGEPROXY_REPLICATION_GOSSIP_INTERVAL_MS`. Sources: SWIM (Das, Gupta, Motivala 2002), Lifeguard
(Dadgar, Phillips, Currey 2017), memberlist (its LAN defaults in `config.go`), serf, foca; "own" is
measured by the simulation in `tests/core/cluster/swim/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TICKS_A_PERIOD = 20
"""How often the shell asks the machine what is due (own: 50 ms at a period of 1 s)."""

PERIOD_JITTER = 0.1
"""Probes of members that started together drift apart (own)."""

INDIRECT_AFTER = 0.4
"""Part of a probe after which helpers are asked (memberlist: 500 ms of 1 s; own: helpers that are
300 ms away can still answer in time)."""

HELPERS = 3
"""How many are asked to ping on behalf (memberlist `IndirectChecks`)."""

NACK_AFTER_PERIODS = 0.3
"""After so long a helper says that there was no answer (memberlist: 400 ms; own: as above)."""

RESEND_LEAST_SECS, RESEND_MOST_SECS = 0.1, 0.4
"""A ping is sent again after srtt + 4 * variance (RFC 6298), then after twice as long, kept between
these (own). Plain SWIM suspects a live member in 23 % of probes at 30 % loss, this in under 3 %."""

SUSPICION_MULT = 4
"""Least suspicion: this * max(1, log10 members) periods (memberlist `SuspicionMult`, foca)."""

SUSPICION_MOST = 6
"""Suspicion without confirmations lasts this much longer (memberlist `SuspicionMaxTimeoutMult`)."""

SUSPECT_ASKED_AFTER, SUSPECT_ASKED_EVERY = 1.0, 0.5
"""After so long, and so often, whoever still holds a suspicion pings the suspect (own: gossip alone
leaves a refutation unknown to 0.4 % of members at 30 % loss, and these would bury a live one)."""

SUSPICION_ALONE = 2
"""Where nobody can confirm it, of two members, it lasts this * the least (own: at 30 % loss, a
refutation is lost for the least time every other day, for twice that practically never)."""

CONFIRMATIONS = 3
"""After so many independent confirmations it lasts the least (Lifeguard: K = 3)."""

SECOND_OPINIONS = 9
"""So many members, on average, probe a suspect next instead of when it is its turn (own: without
it, confirmations come too late for the least time to matter in clusters of 10 and more)."""

MOST_HEALTH = 8
"""Worst value of the local health multiplier (Lifeguard: S = 8)."""

LATE_SECS = 0.25
"""A tick that is later than this is a sign of bad local health (own)."""

PAUSE = 2.0
"""A tick that is later than this is a pause: all that runs is judged anew (own)."""

GOSSIP_EVERY = 0.2
GOSSIP_TO = 3
"""Members that are told news between probes, and how often (memberlist: 200 ms, 3 nodes)."""

RETRANSMIT_MULT = 4
"""News are told this * ceil(log10(members + 1)) times (memberlist `RetransmitMult`)."""

TELLS_DEAD = 60
"""For how long a dead member is still told news, its own death first (memberlist: 30 s)."""

PULL_EVERY = 30
PULL_GROWS_ABOVE = 32
"""How often the whole list is pulled from one member; log2(members / 32) + 1 times as long above
32 members (memberlist `PushPullInterval`, `pushPullScale`)."""

PULL_TRIES = 4
"""How often a page of the list is asked for (own)."""

HEAL_EVERY = 2
HEAL_SHARE = 4
"""How often one dead member is pinged, by each member: every 2 periods, or members / 4 if that is
longer, +-50 % (foca announces to the dead every 65 s, memberlist never; own: a partition heals
within seconds, and all together send a dead member at most four pings in a period)."""

JOIN_FIRST, JOIN_MOST, JOIN_OWN = 1, 30, 600
"""Pause between two tries to reach a bootstrap address, doubled each time; the last one for an
address that led back to this node (own)."""

DEAD_KEPT_SECS = 7 * 86400
LEFT_KEPT_SECS = 86400
"""For how long those that are gone are remembered (own, above foca's and serf's 24 h: both had
shorter times and had members come back from the dead)."""

LEAVE_ROUNDS = 3
"""In so many rounds of gossip a leave is told (own; at most a period in all)."""

FORGET_EVERY = 60
"""How often those that are gone for long are looked for (own)."""

ANSWER_EVERY = 1
"""An accusation, or the news that a node id is taken, answers one member once in so long (own)."""

MAX_MEMBERS = 1024
MAX_ID_BYTES = 64
MAX_REGION_BYTES = 32
MAX_PAYLOAD_BYTES = 64
MAX_INCARNATION = 2**32 - 1
"""What one list and one datagram can hold; all texts are ASCII (own)."""

MAX_RECORDS_BYTES = 850
"""Of records in one message: a datagram of 1,200 bytes, without its seal and the rest (own)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What differs between clusters.

    Attributes:
        period_secs: One member is probed in this time (SWIM: T').
        suspicion_least_secs: No suspicion is shorter (own; WAN paths fail over within 3 s).
    """

    period_secs: float = 1.0
    suspicion_least_secs: float = 3.0

    @property
    def tick_secs(self) -> float:
        """How often `Membership.tick` is to be called."""
        return self.period_secs / TICKS_A_PERIOD

    def suspicion_secs(self, members: int) -> tuple[float, float]:
        """Return the least and the most time that a suspicion lasts."""
        scale = max(1.0, math.log10(max(1, members)))
        least = max(self.suspicion_least_secs, SUSPICION_MULT * scale * self.period_secs)
        return least, SUSPICION_MOST * least

    def pull_secs(self, members: int) -> float:
        """Return the time between two pulls of the whole list."""
        grown = math.log2(members / PULL_GROWS_ABOVE) + 1 if members > PULL_GROWS_ABOVE else 1.0
        return PULL_EVERY * grown * self.period_secs

    def heal_secs(self, members: int) -> float:
        """Return the time between two pings of dead members."""
        return max(HEAL_EVERY, members / HEAL_SHARE) * self.period_secs


def retransmits(members: int) -> int:
    """Return how often news are told in a cluster of so many members."""
    return RETRANSMIT_MULT * math.ceil(math.log10(members + 1))


def confirmations_wanted(members: int) -> int:
    """Return how many others can confirm a suspicion: all but the suspect and the accuser."""
    return max(0, min(CONFIRMATIONS, members - 2))
