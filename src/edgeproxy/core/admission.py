"""Decides which backend a client gets, and keeps the books of who holds which slot.

The pipeline of `Admission.decide`: affinity → origin → candidates by tier → score →
last resort. `admit` then reserves a slot and binds the client.

Invariants:
* A slot is reserved when a `Ticket` is handed out for a backend, and released exactly once
  by `failed` or `closed`; a backend never has more than `hard_limit` slots reserved.
* Nobody is refused while anything is eligible: a full or dead tier falls through to the
  next, and backends that failed lately are tried when nothing else is left.
* A binding to a backend that is unhealthy, deleted, gone or cannot be dialed is dropped;
  one whose backend is only full or passed over sends this connection elsewhere and stays.

All methods run on the gate thread, except `publish`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from edgeproxy.core import ranking
from edgeproxy.core.affinity import Affinity, AffinitySettings
from edgeproxy.core.ejection import Ejection, EjectionSettings
from edgeproxy.core.load import Live, Load, Watch
from edgeproxy.core.model import Backend, Origin
from edgeproxy.core.pace import Rest, no_rest
from edgeproxy.core.ranking import Candidate, Ranking
from edgeproxy.core.routing import EVERY_APP, RoutingTable, Tier


class How(StrEnum):
    """How a backend was chosen."""

    BOUND = "bound"
    SCORED = "scored"
    SPILLED = "spilled"
    """Scored, but not in the nearest tier that the table has for this client."""
    LAST_RESORT = "last_resort"
    """It failed lately, but nothing else is eligible."""


class Reason(StrEnum):
    """Why a client was refused."""

    NO_BACKEND = "no_backend"
    """No healthy backend with a weight is in the table for this app."""
    FULL = "full"
    """Every backend is at its hard limit."""
    UNREACHABLE = "unreachable"
    """Those that were tried could not be dialed, and nobody else is left."""
    NO_RESOURCES = "no_resources"
    """This host has no descriptors, ports or memory to dial with."""


class Blame(StrEnum):
    """Who is to blame for a failed dial."""

    BACKEND = "backend"
    """It did not answer: it is passed over for a while."""
    PATH = "path"
    """This host has no port left towards it; another backend may do."""
    HOST = "host"
    """This host has no descriptors or memory left; no other backend will do."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How clients are given backends.

    Attributes:
        region: The region of this POP.
        app: Serve only the backends of this app; "" serves all apps as one pool.
        max_attempts: How many backends one client is tried on.
    """

    region: str = "sa"
    app: str = EVERY_APP
    max_attempts: int = 3


class Refusal(NamedTuple):
    """A client is turned away."""

    reason: Reason


class Choice(NamedTuple):
    """The backend for a client, before a slot is reserved."""

    candidate: Candidate
    how: How
    origin: Origin | None = None
    tier: Tier | None = None
    ranking: Ranking | None = None


class Ticket:
    """One client's hold on one backend at a time.

    Attributes:
        client: The client's address.
        scope: What it connected to.
        backend: The backend of the attempt that is running, or of the last one.
        how: How that one was chosen.
        origin: Where the client comes from; None if nobody had to know.
        attempts: How many backends it was given.
        tried: The ids of those that could not be dialed.
        held: Where its slot is reserved; None once released.
    """

    __slots__ = (
        "attempts",
        "backend",
        "client",
        "held",
        "how",
        "origin",
        "scope",
        "tried",
    )

    def __init__(self, client: str, scope: str, choice: Choice) -> None:
        self.client = client
        self.scope = scope
        self.attempts = 0
        self.tried: tuple[str, ...] = ()
        self.held: Candidate | None = None
        self.origin = choice.origin
        self.backend: Backend = choice.candidate.backend
        self.how = choice.how

    def __repr__(self) -> str:
        return f"<Ticket {self.client} → {self.backend.id} {self.how} attempt {self.attempts}>"


class Admission:
    """Gives clients their backends.

    `locate` says where a client comes from; it is asked only when no binding decides.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        affinity: AffinitySettings,
        ejection: EjectionSettings,
        locate: Callable[[str], Origin],
        *,
        dial_timeout_secs: float = 5.0,
    ) -> None:
        self._settings = settings
        self.locate = locate
        self._dial_timeout_secs = dial_timeout_secs
        self._ejection = Ejection(ejection)
        self.affinity = Affinity(affinity)
        self.load = Load()
        self.table = RoutingTable((), self.load, settings.region)
        self._latest = self.table
        self._published: deque[tuple[RoutingTable, Watch]] = deque()
        self._replaced: deque[RoutingTable] = deque()

    # -- the table ---------------------------------------------------------------------

    def publish(
        self,
        backends: Collection[Backend],
        scopes: Collection[str] = (),
        rest: Rest = no_rest,
    ) -> RoutingTable:
        """Build a table of these backends and put it into force at the next decision.

        May run on another thread, but only on one at a time; `rest` is called now and then
        for the good of the others (`core.pace`). What changes while the table
        is being built is placed anew when it comes into force.
        """
        while self._replaced:
            self._replaced.popleft().retire()
        watch = self.load.watch()
        latest = self._latest
        table = RoutingTable(
            backends,
            self.load,
            self._settings.region,
            scopes or (self._settings.app,),
            latest.version + 1,
            rest,
        )
        self.load.forget(latest.candidates, table.candidates, rest=rest)
        self._latest = table
        self._published.append((table, watch))
        return table

    def adopt(self) -> None:
        """Put the latest published table into force."""
        watch = None
        while self._published:
            self._replaced.append(self.table)
            self.table, watch = self._published.popleft()
        if watch is None:
            return
        for backend_id in watch.touched:
            candidate = self.table.candidates.get(backend_id)
            if candidate is not None:
                candidate.place()
        self.load.settle(watch)

    # -- decisions ---------------------------------------------------------------------

    def decide(
        self, client: str, scope: str, now: float, tried: Collection[str] = ()
    ) -> Choice | Refusal:
        """Return the backend this client gets now. Reserves, binds and changes nothing."""
        if self._published:
            self.adopt()
        bound = self._bound((client, scope), now)
        if bound is not None and bound.backend.id not in tried:
            return Choice(bound, How.BOUND)
        origin = self.locate(client)
        tiers = self.table.tiers(scope, origin)
        return _lowest(tiers, origin, now, tried) or self._otherwise(tiers, origin, tried)

    def _bound(self, key: tuple[str, str], now: float) -> Candidate | None:
        """Return the backend this client is bound to, if it can be used now."""
        backend_id = self.affinity.get(key, now)
        if backend_id is None:
            return None
        candidate = self.table.candidates.get(backend_id)
        if candidate is None or not self.table.serves(candidate, key[1]):
            return None
        return candidate if candidate.obstacle(now) is None else None

    def _otherwise(
        self, tiers: tuple[Tier, ...], origin: Origin, tried: Collection[str]
    ) -> Choice | Refusal:
        """Nobody is eligible: try those that failed lately, or say why there is nobody."""
        lowest = None
        for tier in tiers:
            for each in tier.rankings:
                for candidate in each.last_resort(tried):
                    score = tier.distance + candidate.load()
                    order = (score, candidate.live.turn, candidate.sequence)
                    if lowest is None or order < lowest[0]:
                        lowest = (order, Choice(candidate, How.LAST_RESORT, origin, tier, each))
        if lowest is not None:
            return lowest[1]
        if tried:
            return Refusal(Reason.UNREACHABLE)
        return Refusal(Reason.FULL if tiers else Reason.NO_BACKEND)

    # -- one client --------------------------------------------------------------------

    def admit(self, client: str, scope: str, now: float) -> Ticket | Refusal:
        """Choose a backend for a new client, reserve a slot and bind the client."""
        choice = self.decide(client, scope, now)
        if isinstance(choice, Refusal):
            return choice
        key = (client, scope)
        stays = None if choice.how is How.BOUND else self._stays_bound_to(key, now)
        self.affinity.bind(key, stays or choice.candidate.backend.id, now)
        ticket = Ticket(client, scope, choice)
        self._reserve(ticket, choice, now)
        return ticket

    def _stays_bound_to(self, key: tuple[str, str], now: float) -> str | None:
        """Return the backend of a binding that cannot be used now but is worth keeping."""
        backend_id = self.affinity.get(key, now)
        candidate = self.table.candidates.get(backend_id) if backend_id else None
        keep = candidate and candidate.usable and self.table.serves(candidate, key[1])
        return backend_id if keep else None

    def failed(self, ticket: Ticket, now: float, blame: Blame = Blame.BACKEND) -> Ticket | Refusal:
        """A dial failed: release the slot and choose another backend, or refuse."""
        live = self._release(ticket)
        if blame is Blame.HOST:
            return Refusal(Reason.NO_RESOURCES)
        key = (ticket.client, ticket.scope)
        if blame is Blame.BACKEND:
            self._ejection.failed(live, now)
            if self.affinity.get(key, now) == ticket.backend.id:
                self.affinity.drop(key)
        ticket.tried = (*ticket.tried, ticket.backend.id)
        if ticket.attempts >= self._settings.max_attempts:
            return Refusal(Reason.UNREACHABLE)
        choice = self.decide(ticket.client, ticket.scope, now, ticket.tried)
        if isinstance(choice, Refusal):
            return choice
        if self.affinity.get(key, now) is None:
            self.affinity.bind(key, choice.candidate.backend.id, now)
        self._reserve(ticket, choice, now)
        return ticket

    def dialed(self, ticket: Ticket) -> None:
        """The backend answered."""
        candidate = ticket.held
        assert candidate is not None
        if self._ejection.answered(candidate.live):
            self._touch(candidate, anew=True)

    def closed(self, ticket: Ticket) -> None:
        """The session ended, or its client left while dialing."""
        self._release(ticket)

    def tick(self, now: float) -> None:
        """Do what is due: adopt a table nobody has asked for yet, sweep bindings."""
        self.adopt()
        self.affinity.sweep(now)

    def _reserve(self, ticket: Ticket, choice: Choice, now: float) -> None:
        candidate = choice.candidate
        live = candidate.live
        assert ticket.held is None
        assert live.active < candidate.limit
        ticket.held = candidate
        ticket.backend = candidate.backend
        ticket.how = choice.how
        ticket.origin = choice.origin
        ticket.attempts += 1
        live.active += 1
        if choice.tier is not None and choice.ranking is not None:
            choice.tier.take_turn(candidate, choice.ranking)
        if live.failures:
            self._ejection.trying(live, self._dial_timeout_secs, now)
        self._touch(candidate)

    def _release(self, ticket: Ticket) -> Live:
        if self._published:
            self.adopt()
        candidate = ticket.held
        assert candidate is not None
        ticket.held = None
        live = candidate.live
        live.active -= 1
        assert live.active >= 0
        self._touch(candidate)
        return live

    def _touch(self, candidate: Candidate, *, anew: bool = False) -> None:
        """Rank a backend, in the table in force, after its live state changed.

        `anew` also where its load is the same, because it may have been passed over.
        """
        live = candidate.live
        current: Candidate | None = candidate
        if candidate.table_version != self.table.version:
            current = self.table.candidates.get(live.backend_id)
        if current is not None:
            if anew:
                current.entry = None
            current.place()
        self.load.touch(live)


def _lowest(
    tiers: tuple[Tier, ...], origin: Origin, now: float, tried: Collection[str]
) -> Choice | None:
    """Return the eligible candidate with the lowest score, ties by turn."""
    best: Choice | None = None
    best_order = (ranking.NEVER, 0.0, 0.0)
    for tier in tiers:
        if best_order[0] <= tier.distance:
            break
        for each in tier.rankings:
            entry = each.best(now, tried)
            if entry is None:
                continue
            order = (tier.distance + entry[0], tier.distance, tier.turn(each))
            if order < best_order:
                how = How.SCORED if tier is tiers[0] else How.SPILLED
                best = Choice(entry[3], how, origin, tier, each)
                best_order = order
    return best
