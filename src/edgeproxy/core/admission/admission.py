"""Decides which backend a client gets, and counts the slots in use.

The pipeline of `Admission.admit`: access → `decide` → reserve a slot → bind the client;
that of `decide`: affinity → origin → candidates by tier → score → last resort.

Invariants:
* A slot is reserved when a `Ticket` is handed out for a backend, and released exactly once
  by `failed` or `closed`; a backend never has more than `hard_limit` slots reserved.
* No client is refused while any backend is eligible: a full or dead tier falls through to the
  next, and backends that failed lately are tried last.
* A binding is dropped if its backend is unhealthy, deleted, gone or cannot be dialed. If the
  backend is only full or passed over, this connection goes elsewhere and the binding stays.

All methods run on the gate thread, except `publish`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from edgeproxy.core.admission.access import AccessControl
from edgeproxy.core.admission.affinity import Affinity, AffinitySettings
from edgeproxy.core.admission.arrivals import Arrival
from edgeproxy.core.admission.ticket import Blame, LoggedDetails, Refusal, Ticket, TicketDetails
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import Breaker, BreakerSettings, Changed
from edgeproxy.core.backends.ejection import Ejection, EjectionSettings
from edgeproxy.core.backends.health import HealthSettings
from edgeproxy.core.backends.live_state import Circuit, LiveState, LiveStates
from edgeproxy.core.backends.slow_start import LEAST_SHARE, SlowStarts
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.pacing import Pause, no_pause
from edgeproxy.core.routing import selection
from edgeproxy.core.routing.choice import Choice, How, Reason
from edgeproxy.core.routing.publication import Publication
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.core.routing.server_names import NO_SERVER_NAMES, ServerNames
from edgeproxy.core.routing.table import ALL_APPS, RoutingTable


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How clients are given backends.

    Attributes:
        region: The region of this POP.
        app: Serve only the backends of this app; "" serves all apps as one pool.
        connect_attempts: How many backends one client is tried on.
    """

    region: str = "sa"
    app: str = ALL_APPS
    connect_attempts: int = 10


class Admission:
    """Gives clients their backends.

    `locate` returns a client's origin; it is called only when no binding decides. With
    `is_logged` every ticket has `LoggedDetails`.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        affinity: AffinitySettings,
        ejection: EjectionSettings,
        locate: Callable[[str], Origin],
        *,
        dial_timeout_secs: float = 5.0,
        access: AccessControl | None = None,
        breaker: BreakerSettings | None = None,
        health: HealthSettings | None = None,
        circuit_changed: Changed = lambda _id, _circuit: None,
        drain_changed: Callable[[LiveState], object] = lambda _live: None,
        is_logged: bool = False,
    ) -> None:
        self._settings = settings
        self._details = LoggedDetails if is_logged else TicketDetails
        self.locate = locate
        self._dial_timeout_secs = dial_timeout_secs
        self._ejection = Ejection(ejection)
        self._breaker: Breaker | None = None
        self._failing: Breaker | Ejection = self._ejection
        self._circuit_changed = circuit_changed
        self._drain_changed = drain_changed
        self.access = access or AccessControl()
        self._slow_starts = SlowStarts()
        self.affinity = Affinity(affinity)
        self.load = LiveStates()
        self._publication = Publication(self.load, settings.region, self._moved)
        self.change(breaker or BreakerSettings(), health or HealthSettings())

    # -- the table ---------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        """The routing table in force."""
        return self._publication.table

    def publish(
        self,
        backends: Collection[Backend],
        scopes: Collection[str] | None = None,
        server_names: ServerNames = NO_SERVER_NAMES,
        rest: Pause = no_pause,
    ) -> RoutingTable:
        """Build a table of these backends and names, and put it in force at the next decision.

        Without `scopes` the table serves the app of the settings. May run on another thread; see
        `Publication.publish`.
        """
        if scopes is None:
            scopes = (self._settings.app,)
        return self._publication.publish(backends, scopes, server_names, rest)

    def adopt(self) -> None:
        """Put the latest published table in force."""
        self._publication.adopt()

    def server_names(self) -> ServerNames:
        """Put the latest published table in force, and return its server names."""
        self.adopt()
        return self.table.server_names

    def _moved(self, live: LiveState) -> None:
        """A backend has a new address: failures at the old one do not count."""
        self._failing.forget(live)

    # -- decisions ---------------------------------------------------------------------

    def decide(
        self, key: tuple[str, str], client: str, now: float, tried: Collection[str] = ()
    ) -> Choice | Refusal:
        """Return the backend for a client and the key of its binding. It changes nothing."""
        publication = self._publication
        if publication.waiting:
            publication.adopt()
        table = publication.table
        bound = self.affinity.usable(key, now, table)
        if bound is not None and bound.backend.id not in tried:
            return Choice(bound, How.BOUND)
        origin = self.locate(client)
        tiers = table.tiers(key[1], origin)
        return (
            selection.lowest(tiers, origin, now, tried)
            or selection.last_resort(tiers, origin, tried)
            or (selection.panic(tiers, origin, now, tried) if self._health.panic else None)
            or Refusal(Reason.UNREACHABLE if tried else selection.why_none(tiers))
        )

    # -- one client --------------------------------------------------------------------

    def admit(
        self,
        client: str,
        scope: str,
        now: float,
        arrival: Arrival | None = None,
        *,
        again: bool = False,
    ) -> Ticket | Refusal:
        """Choose a backend for a new client, reserve a slot and bind the client.

        `arrival` is what the client holds of the limits, if it was checked when it arrived. It is
        released, or goes over to the ticket. `again`: this client was refused only because every
        backend was full. Nothing is counted twice for it.
        """
        access = self.access
        if access.guarded and arrival is None:
            barred = access.check(client, now, takes=True, again=again)
            if barred is not None:
                return Refusal(barred)
        key = (access.key(client), scope)
        choice = self.decide(key, client, now)
        if isinstance(choice, Refusal):
            if arrival is not None:
                access.depart(arrival)
            return choice
        kept = None if choice.how is How.BOUND else self.affinity.kept(key, now, self.table)
        self.affinity.bind(key, kept or choice.candidate.backend.id, now)
        ticket = Ticket(client, scope, choice)
        entered = access.enter(client) if arrival is None else access.settle(arrival)
        if entered is not None or self._keeps_details:
            ticket.details = self._details(entered)
        self._reserve(ticket, choice, now)
        return ticket

    def failed(self, ticket: Ticket, now: float, blame: Blame = Blame.BACKEND) -> Ticket | Refusal:
        """A dial failed: release the slot and choose another backend, or refuse."""
        live = self._release(ticket)
        if blame is Blame.HOST:
            return self._turned_away(ticket, Refusal(Reason.NO_RESOURCES))
        key = (self.access.key(ticket.client), ticket.scope)
        if blame is Blame.BACKEND:
            live.counters.errors += 1
            if ticket.backend.address == live.address:  # else the address has changed since
                self._failing.failed(live, now)
            if self.affinity.get(key, now) == ticket.backend.id:
                self.affinity.drop(key)
        ticket.tried = (*ticket.tried, ticket.backend.id)
        if ticket.attempts >= self._settings.connect_attempts:
            return self._turned_away(ticket, Refusal(Reason.UNREACHABLE))
        choice = self.decide(key, ticket.client, now, ticket.tried)
        if isinstance(choice, Refusal):
            return self._turned_away(ticket, choice)
        if self.affinity.get(key, now) is None:
            self.affinity.bind(key, choice.candidate.backend.id, now)
        self._reserve(ticket, choice, now)
        return ticket

    def _turned_away(self, ticket: Ticket, refusal: Refusal) -> Refusal:
        self._leave(ticket)
        return refusal

    def _leave(self, ticket: Ticket) -> None:
        if ticket.details is not None and ticket.details.entered is not None:
            self.access.leave(ticket.details.entered)
            ticket.details.entered = None

    def dialed(self, ticket: Ticket, secs: float, now: float) -> None:
        """The backend answered; the dial took `secs`, 0 for a pooled connection."""
        candidate = ticket.held
        assert candidate is not None
        if ticket.details is not None:
            ticket.details.dialed_at = now
            ticket.details.dial_secs = secs
            if self._breaker is not None:
                ticket.details.trial = self._breaker.begin_trial(candidate.live, now)
        candidate.live.counters.answered(secs)
        if self._failing.answered(candidate.live):
            self._touch(candidate, anew=True)

    def closed(
        self,
        ticket: Ticket,
        now: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
        *,
        without_answer: bool = False,
    ) -> None:
        """The session ended, or its client left while dialing.

        `without_answer`: the backend ended it and had not sent a byte.
        """
        live = self._release(ticket)
        live.counters.bytes_in += bytes_in
        live.counters.bytes_out += bytes_out
        self._leave(ticket)
        details = ticket.details
        if self._breaker is not None and details is not None and details.dialed_at:
            open_secs = now - details.dialed_at
            if without_answer and open_secs <= self._breaker.settings.early_close_secs:
                live.counters.closed_early(now)
                if ticket.backend.address == live.address:
                    self._breaker.closed_early(live, now)
                return
            live.early_closes = 0
            trial = details.trial
            if trial and self._breaker.end_trial(trial, now, has_answered=bytes_out > 0):
                self._rank_anew(live)

    def excuse(self, secs: float) -> None:
        """This process heard nobody for so long: connections on trial may have ended unheard."""
        if self._breaker is not None:
            self._breaker.excuse(secs)

    def tick(self, now: float) -> None:
        """Adopt a waiting table, sweep expired state, advance slow start and trials."""
        self.adopt()
        self.affinity.sweep(now)
        self.access.sweep(now)
        for backend_id, share in self._slow_starts.advance(self._health.slow_start_secs, now):
            live = self.load.known(backend_id)
            if live is not None:
                live.share = share
                self._rank_anew(live)
        for live in self._breaker.pass_trials(now) if self._breaker is not None else ():
            self._rank_anew(live)

    # -- the state of backends ---------------------------------------------------------

    def change(self, breaker: BreakerSettings, health: HealthSettings) -> None:
        """Apply new settings."""
        self._health = health
        watches_early_closes = breaker.enabled and breaker.early_close_secs > 0
        self._keeps_details = self._details is LoggedDetails or watches_early_closes
        lives = self.load.all()
        moved: list[LiveState] = []
        if not breaker.enabled:
            self._breaker = None
            moved = [live for live in lives if live.circuit is not Circuit.CLOSED]
            for live in moved:
                live.circuit, live.passed_over_until = Circuit.CLOSED, 0.0
        elif self._breaker is None:
            self._breaker = Breaker(breaker, self._circuit_changed)
        else:
            moved = self._breaker.change(breaker, lives)
        self._failing = self._breaker or self._ejection
        for live in moved:
            self._rank_anew(live)

    def set_health(self, backend_id: str, up: bool, now: float) -> None:
        """The probes of a backend say that it is up or down."""
        self._slow_starts.cancel(backend_id)
        live = self._known(backend_id)
        if live is None:
            return
        starts_slowly = up and self._health.slow_start_secs > 0
        live.down = not up
        live.share = LEAST_SHARE if starts_slowly else 1.0
        self._rank_anew(live)
        if starts_slowly:
            self._slow_starts.begin(backend_id, now)

    def drain(self, backend_id: str, draining: bool) -> bool:
        """Give a backend no new clients, or give it clients again. Return whether it is known.

        A backend that is drained stays so when it leaves the table and comes back.
        """
        live = self._known(backend_id)
        if live is None:
            return False
        if live.draining is not draining:
            live.draining = draining
            self._drain_changed(live)
        self._rank_anew(live)
        return True

    def expire(self, backend_id: str, expired: bool) -> bool:
        """The lease of a backend has expired, or was renewed. Return whether it is known."""
        live = self._known(backend_id)
        if live is None:
            return False
        live.lease_expired = expired
        self._rank_anew(live)
        return True

    def _known(self, backend_id: str) -> LiveState | None:
        """Return the live state of a backend as of the latest table, if it has one."""
        self.adopt()
        return self.load.known(backend_id)

    def _rank_anew(self, live: LiveState) -> None:
        """Rank a backend, if it is in the table, after its state changed outside a session."""
        self.adopt()
        candidate = self.table.candidates.get(live.backend_id)
        if candidate is None:
            self.load.touch(live)
        else:
            candidate.weigh()
            self._touch(candidate, anew=True)

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
        if live.failures or live.circuit is not Circuit.CLOSED:
            self._failing.trying(live, self._dial_timeout_secs, now)
        self._touch(candidate)

    def _release(self, ticket: Ticket) -> LiveState:
        publication = self._publication
        if publication.waiting:
            publication.adopt()
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

        `anew`: even if its load is the same, because it was passed over until now.
        """
        live = candidate.live
        current: Candidate | None = candidate
        table = self._publication.table
        if candidate.table_version != table.version:
            current = table.candidates.get(live.backend_id)
        if current is not None:
            if anew:
                current.entry = None
            current.place()
        self.load.touch(live)
