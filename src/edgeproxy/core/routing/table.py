"""The routing table: the app of each server name, and the order of the backends for a client.

A table is built whole from the rows of the routing database and then never changes; the
next one replaces it by one reference. Its candidates are grouped by scope, region and
country when it is built, so that a decision looks only at the groups that matter.

A scope is what a listener or a server name leads to: the name of an app, or `ALL_APPS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import reduce
from math import gcd

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveStates
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing import scoring
from edgeproxy.core.routing.eligibility import ineligible_row
from edgeproxy.core.routing.ranking import Candidate, Ranking
from edgeproxy.core.routing.server_names import NO_SERVER_NAMES, ServerNames

ALL_APPS = ""

MAX_CACHED_TIERS = 4096


class Tier:
    """The places that are equally far from a client.

    Where several places tie they take turns in proportion to the weights they have now, by the
    same rule as the candidates of one place (`core/routing/ranking`).

    Attributes:
        distance: What it adds to the score.
        rankings: Where the candidates are.
    """

    __slots__ = ("_clock", "_turns", "distance", "rankings")

    def __init__(self, distance: float, rankings: list[Ranking]) -> None:
        self.distance = distance
        self.rankings = rankings
        self._turns = dict.fromkeys(rankings, 0.0)
        self._clock = 0.0

    def turn(self, ranking: Ranking) -> float:
        """Return the turn of a place; the lowest goes first."""
        return self._turns[ranking]

    def take_turn(self, candidate: Candidate, ranking: Ranking) -> None:
        """Note that this candidate was chosen."""
        self._clock = max(self._clock, self._turns[ranking])
        self._turns[ranking] = self._clock + 1.0 / (ranking.available or ranking.weight)
        candidate.take_turn(ranking)


class RoutingTable:
    """All backends of one version of the routing database.

    Attributes:
        version: Counts the published tables of this process.
        candidates: All of them by id, also those that take no clients.
        moved: Those with a new address, as far as is known when the table is built.
        server_names: The app of each server name.
        scopes: The scopes that clients can be routed to, with the apps of all server names.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        load: LiveStates,
        pop_region: str,
        scopes: Iterable[str] = (ALL_APPS,),
        server_names: ServerNames = NO_SERVER_NAMES,
        version: int = 0,
        rest: Pause = no_pause,
    ) -> None:
        self._rest = rest
        self.version = version
        self.pop_region = pop_region
        self.server_names = server_names
        self.scopes = server_names.apps.union(scopes)
        self.candidates: dict[str, Candidate] = {}
        self.moved: list[Candidate] = []
        for sequence, row in enumerate(paced(backends, rest)):
            address = row.address
            live = load.of(row.id, address)
            self.candidates[row.id] = candidate = Candidate(row, live, sequence, version)
            if live.address != address:
                self.moved.append(candidate)
        self._rankings = self._ranked()
        self._tiers: dict[tuple[str, str | None, str | None], tuple[Tier, ...]] = {}

    def __repr__(self) -> str:
        return f"<RoutingTable version={self.version} backends={len(self.candidates)}>"

    def _ranked(self) -> dict[str, dict[tuple[str, str | None], Ranking]]:
        groups: dict[str, dict[tuple[str, str | None], list[Candidate]]] = {
            scope: defaultdict(list) for scope in self.scopes
        }
        places: dict[tuple[str, str | None], list[Candidate]] = defaultdict(list)
        for candidate in paced(self.candidates.values(), self._rest):
            backend = candidate.backend
            if ineligible_row(backend) is None:
                scopes = {backend.app, ALL_APPS} & self.scopes
                for scope in scopes:
                    groups[scope][backend.region, backend.country].append(candidate)
                if scopes:
                    places[backend.region, backend.country].append(candidate)
        for members in places.values():
            divisor = reduce(gcd, (each.backend.weight for each in paced(members, self._rest)))
            for each in paced(members, self._rest):
                each.unit = scoring.round_of(each.backend, divisor)
        return {
            scope: {place: Ranking(members, self._rest) for place, members in group.items()}
            for scope, group in groups.items()
        }

    def retire(self) -> None:
        """Break the reference cycles of a table that is not in force any more.

        A large table is then freed piece by piece instead of by the garbage collector,
        which would stop every thread for it. Not to be called while a decision uses it.
        """
        for candidate in paced(self.candidates.values(), self._rest):
            candidate.rankings = []
            candidate.entry = None
        for group in self._rankings.values():
            for ranking in group.values():
                ranking.clear(self._rest)
        self.moved = []
        candidates, self.candidates = self.candidates, {}
        for _ in paced(range(len(candidates)), self._rest):
            candidates.popitem()

    def serves(self, candidate: Candidate, scope: str) -> bool:
        """Return whether this backend belongs to the scope."""
        return scope in (ALL_APPS, candidate.backend.app)

    def tiers(self, scope: str, origin: Origin) -> tuple[Tier, ...]:
        """Return where the candidates for a client from `origin` are, nearest first."""
        key = (scope, origin.region, origin.country)
        tiers = self._tiers.get(key)
        if tiers is None:
            if len(self._tiers) >= MAX_CACHED_TIERS:
                self._tiers.clear()
            tiers = self._tiers[key] = self._sorted(scope, origin)
        return tiers

    def _sorted(self, scope: str, origin: Origin) -> tuple[Tier, ...]:
        by_score: dict[float, list[Ranking]] = defaultdict(list)
        for (region, country), ranking in self._rankings.get(scope, {}).items():
            score = scoring.region_score(region, country, origin, self.pop_region)
            by_score[score].append(ranking)
        return tuple(
            Tier(score * scoring.REGION_UNIT, by_score[score]) for score in sorted(by_score)
        )
