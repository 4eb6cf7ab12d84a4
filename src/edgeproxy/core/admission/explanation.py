"""Says why a client gets the backend it gets.

The backend comes from `Admission.decide` itself, called without reserving anything. The list
beside it comes from the same candidates and scores, and from the record of each backend that every
surface shows (`core/routing/backend_snapshot`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.ticket import Refusal
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import scoring
from edgeproxy.core.routing.backend_snapshot import ELIGIBLE, backend_snapshot
from edgeproxy.core.routing.ranking import Candidate


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """One backend as it looked to this decision.

    Attributes:
        excluded: Why it could not be chosen, or None.
        score: None for a backend that is not scored because its weight is 0.
    """

    id: str
    app: str
    region: str
    country: str | None
    address: str
    tier: str
    region_score: float
    active: int
    soft_limit: int
    hard_limit: int
    load_factor: float
    weight: int
    score: float | None
    excluded: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole record of one decision.

    Attributes:
        backend: The id of the chosen backend, or None if the client would be refused.
        how: `bound`, `scored`, `spilled`, `last_resort`, or the reason of the refusal.
        bound_to: The id of the backend the client is bound to, usable or not.
        candidates: All backends of the scope: first those that can be chosen, the best
            first, then the excluded ones.
    """

    client: str
    scope: str
    origin: Origin
    pop_region: str
    table_version: int
    bound_to: str | None
    backend: str | None
    how: str
    candidates: tuple[CandidateRecord, ...]


def explain(admission: Admission, client: str, scope: str, now: float) -> Decision:
    """Return the decision that this client would get now. Gate thread only."""
    barred = admission.access.check(client, now)
    choice = Refusal(barred) if barred else admission.decide(client, scope, now)
    origin = admission.locate(client)
    table = admission.table
    records = [
        _record(candidate, origin, table.pop_region, now)
        for candidate in table.candidates.values()
        if table.serves(candidate, scope)
    ]
    chosen = None if isinstance(choice, Refusal) else choice.candidate.backend.id
    records.sort(key=lambda each: (each.excluded is not None, each.score is None, each.score or 0))
    records.sort(key=lambda each: each.id != chosen)
    return Decision(
        client=client,
        scope=scope,
        origin=origin,
        pop_region=table.pop_region,
        table_version=table.version,
        bound_to=admission.affinity.get((admission.access.key(client), scope), now),
        backend=chosen,
        how=str(choice.reason if isinstance(choice, Refusal) else choice.how),
        candidates=tuple(records),
    )


def _record(candidate: Candidate, origin: Origin, pop_region: str, now: float) -> CandidateRecord:
    snapshot = backend_snapshot(candidate, now)
    backend, active = snapshot.backend, snapshot.active
    distance = scoring.region_score(backend.region, backend.country, origin, pop_region)
    score = None
    if candidate.capacity:
        load = scoring.load_score(active, candidate.capacity)
        score = distance * scoring.REGION_UNIT + load
    return CandidateRecord(
        id=backend.id,
        app=backend.app,
        region=backend.region,
        country=backend.country,
        address=backend.address,
        tier=scoring.TIER_NAMES[distance],
        region_score=distance,
        active=active,
        soft_limit=backend.soft_limit,
        hard_limit=backend.hard_limit,
        load_factor=active / max(backend.soft_limit, 1),
        weight=backend.weight,
        score=score,
        excluded=None if snapshot.state == ELIGIBLE else snapshot.state,
    )
