"""Says why a client gets the backend it gets.

The backend comes from `Admission.decide` itself, called without reserving anything. The list
beside it comes from the same candidates and scores, and from the record of each backend that every
surface shows (`core/routing/backend_snapshot`). The decision is made between two others; the list
is not, because it is as long as the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.ticket import Refusal
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.pacing import Pause, no_pause, paced, paced_sorted
from edgeproxy.core.routing import scoring
from edgeproxy.core.routing.backend_snapshot import ELIGIBLE, backend_snapshot
from edgeproxy.core.routing.ranking import Candidate

T = TypeVar("T")


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


def choose(admission: Admission, client: str, scope: str, now: float) -> Decision:
    """Return the decision that this client would get now, without its candidates.

    Gate thread only. Costs about as much as a client.
    """
    barred = admission.access.check(client, now)
    key = (admission.access.key(client), scope)
    choice = Refusal(barred) if barred else admission.decide(key, client, now)
    table = admission.table
    return Decision(
        client=client,
        scope=scope,
        origin=admission.locate(client),
        pop_region=table.pop_region,
        table_version=table.version,
        bound_to=admission.affinity.get(key, now),
        backend=None if isinstance(choice, Refusal) else choice.candidate.backend.id,
        how=str(choice.reason if isinstance(choice, Refusal) else choice.how),
        candidates=(),
    )


def candidates_of(
    admission: Admission,
    decision: Decision,
    now: float,
    shape: Callable[[CandidateRecord], T],
    rest: Pause = no_pause,
) -> Iterator[T]:
    """Yield the candidates of a decision in their order, in the shape that they are kept in.

    From any thread: they may be a moment younger than the decision.
    """
    table = admission.table

    def ranked(candidate: Candidate) -> tuple[bool, bool, bool, float, int, T]:
        record = _record(candidate, decision.origin, table.pop_region, now)
        return (
            record.id != decision.backend,
            record.excluded is not None,
            record.score is None,
            record.score or 0.0,
            candidate.sequence,
            shape(record),
        )

    candidates = paced(list(table.candidates.values()), rest)
    served = (ranked(each) for each in candidates if table.serves(each, decision.scope))
    return (each[-1] for each in paced_sorted(served, rest))


def explain(admission: Admission, client: str, scope: str, now: float) -> Decision:
    """Return the decision that this client would get now. Gate thread only."""
    decision = choose(admission, client, scope, now)
    records = candidates_of(admission, decision, now, lambda record: record)
    return replace(decision, candidates=tuple(records))


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
