"""How this POP sees its backends, as the API shows them: read, nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeproxy.api.bodies import BackendView, Health, Lease, Readiness, TableView
from edgeproxy.api.fault import unknown
from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import circuit_of
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.routing.eligibility import ineligible
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.version import VERSION

ELIGIBLE = "eligible"
COUNTRIES = {"sa": "BR", "us": "US", "eu": "DE", "ap": "JP"}
"""What is shown as the country of a backend that has named none."""


class Listing:
    """The backends in force, joined to what is known of them.

    `in_force` returns those that were published last.

    Attributes:
        leases: Of those that are registered.
        stopping: The proxy is being stopped.
    """

    def __init__(
        self,
        leases: Leases,
        admission: Admission,
        status: Status,
        in_force: Callable[[], tuple[Backend, ...]],
    ) -> None:
        self.leases = leases
        self.stopping = False
        self._admission = admission
        self._status = status
        self._in_force = in_force
        self._seen: tuple[Backend, ...] | None = None
        self._by_id: dict[str, Backend] = {}

    def backends(self) -> dict[str, Backend]:
        """Return the backends in force, by id; who is no more among them has no lease."""
        in_force = self._in_force()
        if in_force is not self._seen:
            self._seen = in_force
            self._by_id = {each.id: each for each in in_force}
            self.leases.keep(self._by_id)
        return self._by_id

    def health(self) -> Health:
        """Return that this process lives."""
        status = self._status
        return Health(
            "ok",
            VERSION,
            sum(not each.deleted for each in self._in_force()),
            int(status.uptime_secs()),
            status.engine_kind,
            self._admission.table.pop_region,
        )

    def readiness(self) -> Readiness:
        """Return whether clients would be served."""
        if self.stopping:
            return Readiness(False, "the proxy is draining")
        now = time.monotonic()
        if any(ineligible(each.backend, each.live, now) is None for each in self._candidates()):
            return Readiness(True, None)
        return Readiness(False, "no backend is eligible")

    def table(self) -> TableView:
        """Return what is known of the table in force."""
        now = time.monotonic()
        candidates = self._candidates()
        return TableView(
            self._admission.table.version,
            round(now - self._status.published_at, 3),
            sum(not each.backend.deleted for each in candidates),
            sum(ineligible(each.backend, each.live, now) is None for each in candidates),
            len(self.leases),
            self.leases.holding,
        )

    def views(self) -> list[BackendView]:
        """Return all backends but those that are removed. May run in a thread."""
        return [self._view(each) for each in self._candidates() if not each.backend.deleted]

    def view(self, backend_id: str) -> BackendView:
        """Return one backend. Raises FaultError."""
        candidate = self._admission.table.candidates.get(backend_id)
        if candidate is None:
            raise unknown(backend_id)
        return self._view(candidate)

    def _candidates(self) -> list[Candidate]:
        return list(self._admission.table.candidates.values())

    def _view(self, candidate: Candidate) -> BackendView:
        backend, live = candidate.backend, candidate.live
        now = time.monotonic()
        silent_secs = self.leases.silence(backend.id, now)
        ttl_secs = self.leases.ttl_secs
        lease = None
        if silent_secs is not None:
            left_secs = max(ttl_secs - silent_secs, 0.0)
            lease = Lease(round(silent_secs, 3), round(left_secs, 3), ttl_secs)
        verdict = self._status.verdicts().get(backend.id)
        reason = ineligible(backend, live, now)
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
            state=ELIGIBLE if reason is None else reason.value,
            up=None if verdict is None else verdict.up,
            circuit=circuit_of(live, now),
            draining=live.draining,
            active_connections=live.active,
            registered=lease is not None,
            lease=lease,
        )
