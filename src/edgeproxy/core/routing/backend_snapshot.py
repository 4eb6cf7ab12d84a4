"""A backend as it is now: the one record that every surface shows.

`backend_snapshot` is the only place that makes it from a candidate. `edgeproxy status`, `edgeproxy
top`, `explain`, the API and the metrics show different fields of it, and never disagree about one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import circuit_of
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.backends.health import Verdict
from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.routing.eligibility import ineligible
from edgeproxy.core.routing.ranking import Candidate

ELIGIBLE = "eligible"


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """One backend at one moment.

    Attributes:
        backend: Its row.
        counters: Its counters; their bytes are those of ended sessions.
        active: Reserved slots: connections that are dialing or open.
        state: `ELIGIBLE`, or why it takes no new clients (`core/routing/eligibility`).
        up: The result of its health checks; None without health checks.
        bytes_in, bytes_out: Bytes of the sessions that are still open.
        warm: Idle connections in the pool.
        fault: What its last probe found wrong; "" for nothing.
        error_age_secs: How long ago `BackendCounters.last_error` was; None without one.
    """

    backend: Backend
    counters: BackendCounters
    active: int = 0
    state: str = ELIGIBLE
    circuit: Circuit = Circuit.CLOSED
    draining: bool = False
    up: bool | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    warm: int = 0
    fault: str = ""
    error_age_secs: float | None = None

    @property
    def all_bytes_in(self) -> int:
        """Bytes from clients to the backend, of ended and open sessions."""
        return self.counters.bytes_in + self.bytes_in

    @property
    def all_bytes_out(self) -> int:
        """Bytes from the backend to clients, of ended and open sessions."""
        return self.counters.bytes_out + self.bytes_out


def backend_snapshot(
    candidate: Candidate,
    now: float,
    verdict: Verdict | None = None,
    *,
    warm: int = 0,
    carried: tuple[int, int] = (0, 0),
) -> BackendSnapshot:
    """Return a backend as it is now. From any thread.

    `verdict` is what its health checks say. `carried` are the bytes of its open sessions, from
    clients and to clients.
    """
    backend, live = candidate.backend, candidate.live
    reason = ineligible(backend, live, now)
    return BackendSnapshot(
        backend,
        live.counters,
        live.active,
        ELIGIBLE if reason is None else reason.value,
        circuit_of(live, now),
        live.draining,
        None if verdict is None else verdict.up,
        *carried,
        warm,
        "" if verdict is None else verdict.last,
        now - live.counters.last_error_at if live.counters.last_error else None,
    )
