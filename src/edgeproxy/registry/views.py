"""What the API shows of backends, leases and the table. The functions here only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.pacing import Pause, paced
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot
from edgeproxy.core.routing.eligibility import ineligible
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.version import VERSION

COUNTRIES = {"sa": "BR", "us": "US", "eu": "DE", "ap": "JP"}
"""The country that is shown for a backend without one, by region."""


@dataclass(slots=True)
class Lease:
    """How long a registered backend has been silent, and when its lease expires."""

    age_secs: float
    expires_in_secs: float
    ttl_secs: float


@dataclass(slots=True, kw_only=True)
class BackendView:
    """A backend: what is stored, and how this POP sees it.

    `state` is `eligible`, or why it takes no new clients; `healthy` is the operator's intent,
    `up` what probes say, if it is probed. Without a `lease` it is not registered with this POP.
    """

    id: str
    app: str
    region: str
    country: str | None
    ip: str
    port: int
    weight: int
    soft_limit: int
    hard_limit: int
    healthy: bool
    deleted: bool
    state: str
    up: bool | None
    circuit: str
    draining: bool
    active_connections: int
    registered: bool
    lease: Lease | None


@dataclass(slots=True)
class ClusterHealth:
    """The POPs that share this routing table, as this one sees them.

    `ready`: all that another POP has is known here, or there is none. `stalled`: why edits cannot
    be carried between the routing database and the cluster. `behind` counts the transactions of
    others that are missing here.
    """

    node_id: str
    ready: bool
    stalled: str | None
    alive: int
    dead: int
    behind: int


@dataclass(slots=True)
class Health:
    """This process lives. `cluster` is there with replication, while its agent answers."""

    status: str
    version: str
    backends: int
    uptime_secs: int
    engine: str
    region: str
    cluster: ClusterHealth | None = None


@dataclass(slots=True)
class Readiness:
    """Whether clients would be served; `reason` says why not."""

    ready: bool
    reason: str | None


@dataclass(slots=True)
class TableView:
    """The routing table in force, and the leases.

    While `expiry_held_back` is true, most backends are silent, and no lease expires.
    """

    version: int
    age_secs: float
    backends: int
    eligible: int
    leases: int
    expiry_held_back: bool


def health_of(status: Status, backends: int, region: str) -> Health:
    """Return that this process lives."""
    uptime_secs = int(status.uptime_secs())
    cluster = _cluster_health(status.cluster() or {})
    return Health("ok", VERSION, backends, uptime_secs, status.engine_kind, region, cluster)


def _cluster_health(agent: Mapping[str, Any]) -> ClusterHealth | None:
    """Return what the agent said last, in short; None if it says nothing."""
    if "node_id" not in agent:
        return None
    states = Counter(member["state"] for member in agent["members"])
    return ClusterHealth(
        agent["node_id"],
        agent["ready"],
        agent["bridge"]["fault"] or None,
        1 + states["alive"],
        states["suspect"] + states["dead"],
        sum(member["missing_here"] or 0 for member in agent["members"]),
    )


class ReadinessCheck:
    """Answers whether clients would be served, beginning with the backend that was found last."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._found = ""

    def now(self, now: float, *, stopping: bool) -> Readiness:
        """Return whether clients would be served."""
        if stopping:
            return Readiness(False, "the proxy is draining")
        found = self._admission.table.candidates.get(self._found)
        if found is not None and ineligible(found.backend, found.live, now) is None:
            return Readiness(True, None)
        for candidate in candidates_of(self._admission):
            if ineligible(candidate.backend, candidate.live, now) is None:
                self._found = candidate.backend.id
                return Readiness(True, None)
        return Readiness(False, "no backend is eligible")


def table_view(
    admission: Admission, leases: Leases, published_at: float, now: float, rest: Pause
) -> TableView:
    """Return the state of the table in force. `rest` is called every few backends."""
    candidates = candidates_of(admission)
    eligible = sum(
        ineligible(candidate.backend, candidate.live, now) is None
        for candidate in paced(candidates, rest)
    )
    return TableView(
        admission.table.version,
        round(now - published_at, 3),
        sum(not candidate.backend.deleted for candidate in candidates),
        eligible,
        len(leases),
        leases.holding,
    )


def candidates_of(admission: Admission) -> list[Candidate]:
    """Return all backends of the table in force; from any thread."""
    return list(admission.table.candidates.values())


def lease_of(leases: Leases, backend_id: str, now: float) -> Lease | None:
    """Return the lease of a backend, None for one that is not registered here."""
    silent_secs = leases.silence(backend_id, now)
    if silent_secs is None:
        return None
    left_secs = max(leases.ttl_secs - silent_secs, 0.0)
    return Lease(round(silent_secs, 3), round(left_secs, 3), leases.ttl_secs)


def backend_view(snapshot: BackendSnapshot, lease: Lease | None) -> BackendView:
    """Return what the API shows of a backend."""
    backend = snapshot.backend
    return BackendView(
        id=backend.id,
        app=backend.app,
        region=backend.region,
        country=backend.country or COUNTRIES.get(backend.region),
        ip=backend.wg_ip,
        port=backend.port,
        weight=backend.weight,
        soft_limit=backend.soft_limit,
        hard_limit=backend.hard_limit,
        healthy=backend.healthy,
        deleted=backend.deleted,
        state=snapshot.state,
        up=snapshot.up,
        circuit=snapshot.circuit,
        draining=snapshot.draining,
        active_connections=snapshot.active,
        registered=lease is not None,
        lease=lease,
    )
