"""The state of the running proxy at one moment, and what readers ask about it.

`explanation`, `sessions` and `state` are for the event loop: they have the answer rendered, in
pieces of JSON, off the gate thread (`control/observe/renderer`). `read` may run on any thread but
the gate's. It reads the counters of other parts, the table in force and the sessions of the engine,
which may be a moment apart.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.health import Verdict
from edgeproxy.core.geo.address import normalise
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.pacing import Pause, paced
from edgeproxy.engine.contract import Engine
from edgeproxy.version import VERSION

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.control.observe.renderer import Pieces, Renderer
    from edgeproxy.control.observe.status_snapshot import StatusSnapshot, Surroundings
    from edgeproxy.core.admission.explanation import Decision
    from edgeproxy.core.routing.backend_snapshot import BackendSnapshot

T = TypeVar("T")

GATE_SECS = 5.0
"""How long the gate may take to answer."""


class _Backends:
    """The backends of a snapshot, read anew in each iteration."""

    def __init__(self, each: Callable[[], Iterator[BackendSnapshot]]) -> None:
        self._each = each

    def __iter__(self) -> Iterator[BackendSnapshot]:
        return self._each()


class Status:
    """The state of one proxy, read from its parts.

    Attributes:
        verdicts: The results of health checks, by backend; empty without health checks.
    """

    def __init__(
        self,
        scope: str,
        region: str,
        admission: Admission,
        metrics: Metrics,
        engine: Engine,
        *,
        published_at: Callable[[], float],
        loop_lag_secs: Callable[[], float],
        verdicts: Callable[[], dict[str, Verdict]],
        pool_waiting: Callable[[], dict[str, int]],
        certificates: Callable[[], tuple[int, float] | None],
        access_lines_dropped: Callable[[], int],
        surroundings: Callable[[], Surroundings],
    ) -> None:
        """Clients are explained for `scope` when a request names no app.

        `pool_waiting` returns the number of idle connections, by backend. `certificates` returns
        how often new certificates could not be used, and when the first of those in use expires
        (Unix seconds), or None without TLS. `access_lines_dropped` returns the number of records
        that the access log could not write.
        """
        self.verdicts = verdicts
        self._pool_waiting = pool_waiting
        self._certificates = certificates
        self._access_lines_dropped = access_lines_dropped
        self._surroundings = surroundings
        self._published_at = published_at
        self._loop_lag_secs = loop_lag_secs
        self._scope = scope
        self._region = region
        self._admission = admission
        self._metrics = metrics
        self._engine = engine
        self._began_at = time.monotonic()
        self._renderer: Renderer | None = None

    @property
    def published_at(self) -> float:
        """When the table in force was published (monotonic seconds)."""
        return self._published_at()

    @property
    def loop_lag_secs(self) -> float:
        """How late the control plane's last timer was."""
        return self._loop_lag_secs()

    @property
    def engine_kind(self) -> str:
        """The kind of the engine."""
        return self._engine.kind

    def cluster(self) -> Mapping[str, Any] | None:
        """Return what is known of the other POPs; None without replication."""
        return self._surroundings().cluster

    def uptime_secs(self) -> float:
        """Return for how long this process has run."""
        return time.monotonic() - self._began_at

    @property
    def renderer(self) -> Renderer:
        """What renders the answers of all readers, one at a time. Loop only."""
        if self._renderer is None:
            from edgeproxy.control.observe.renderer import Renderer

            self._renderer = Renderer()
        return self._renderer

    def read(self) -> StatusSnapshot:
        """Return the state of now."""
        from edgeproxy.control.observe.status_snapshot import StatusSnapshot

        now = time.monotonic()
        metrics = self._metrics
        carried = self._carried()
        admission = self._admission
        return StatusSnapshot(
            version=VERSION,
            engine=self._engine.kind,
            region=self._region,
            connections=metrics.accepted,
            active=self._engine.live(),
            bytes_in=metrics.bytes_in + sum(bytes_in for bytes_in, _ in carried.values()),
            bytes_out=metrics.bytes_out + sum(bytes_out for _, bytes_out in carried.values()),
            failovers=metrics.failovers,
            refused=dict(metrics.refused),
            closed=dict(metrics.closed),
            dial_failures=dict(metrics.dial_failures),
            bindings=len(admission.affinity),
            rate_limited_clients=len(admission.access.rate),
            table_version=admission.table.version,
            table_age_secs=now - self.published_at,
            surroundings=self._surroundings(),
            decisions=metrics.decisions.copy(),
            session_secs=metrics.session_secs,
            first_byte_secs=metrics.first_byte_secs,
            pool_hits=metrics.pool_hits,
            pool_misses=metrics.pool_misses,
            pool_dropped=metrics.pool_dropped,
            rows_skipped=metrics.rows_skipped,
            reload_errors=metrics.reload_errors,
            loop_lag_secs=self.loop_lag_secs,
            descriptors=len(os.listdir("/proc/self/fd")) - 1,
            uptime_secs=now - self._began_at,
            pid=os.getpid(),
            connections_by_app=dict(metrics.accepted_by_app),
            refused_by_app={
                app: dict(counts) for app, counts in list(metrics.refused_by_app.items())
            },
            certificates=self._certificates(),
            access_lines_dropped=self._access_lines_dropped(),
            database_up=metrics.database_up,
            leases=metrics.leases,
            leases_expired=metrics.leases_expired,
            leases_held_back=metrics.leases_held_back,
            backends=_Backends(partial(self._backends, carried, now)),
        )

    async def state(self) -> Pieces:
        """Return everything that `read` does, as JSON."""
        return await self.renderer.answer(("status",), lambda rest: [*self.read().as_json(rest)])

    async def sessions(self) -> Pieces:
        """Return an array of the open sessions, as JSON."""
        from edgeproxy.control.observe.json_pieces import array

        return await self.renderer.answer(
            ("sessions",), lambda rest: [*array(paced(self._sessions(), rest))]
        )

    async def explanation(self, client: str, scope: str | None) -> Pieces:
        """Return the decision for a client, as JSON. Raises ValueError.

        Only the decision itself is made on the gate thread.
        """
        import asyncio

        from edgeproxy.control.observe.json_pieces import encoded, with_array
        from edgeproxy.core.admission.explanation import candidates_of

        ip_address(client)
        async with asyncio.timeout(GATE_SECS):
            decision = await self.on_gate(lambda: self.choose(client, scope))
        head = {field.name: getattr(decision, field.name) for field in fields(decision)}
        del head["candidates"]

        def render(rest: Pause) -> Pieces:
            now = time.monotonic()
            records = candidates_of(self._admission, decision, now, encoded, rest)
            return [*with_array(head, "candidates", records)]

        return await self.renderer.answer(("explain", decision.client, decision.scope), render)

    def _sessions(self) -> Iterator[dict[str, Any]]:
        return (
            {
                "client": session.client[0],
                "port": session.client[1],
                "backend": ticket.backend.id,
                "how": str(ticket.how),
                "state": session.state,
                "secs": round(session.secs, 3),
                "bytes_in": session.bytes_in,
                "bytes_out": session.bytes_out,
            }
            for session in self._engine.sessions()
            if isinstance(ticket := session.ticket, Ticket)
        )

    def on_gate(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function on the gate thread; for an event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(done: Callable[[], object]) -> None:
            if not answer.done():
                done()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 — the caller gets it
                loop.call_soon_threadsafe(settle, partial(answer.set_exception, error))
            else:
                loop.call_soon_threadsafe(settle, partial(answer.set_result, result))

        self._engine.call(run)
        return answer

    def choose(self, client: str, scope: str | None) -> Decision:
        """Return the decision for a client, without its candidates. Gate thread only."""
        from edgeproxy.core.admission.explanation import choose

        app = self._scope if scope is None else scope
        return choose(self._admission, normalise(client), app, time.monotonic())

    def drain(self, backend_id: str, draining: bool) -> bool:
        """Drain a backend or not; return whether it is known. Gate thread only."""
        return self._admission.drain(backend_id, draining)

    def _carried(self) -> dict[str, tuple[int, int]]:
        """Return the bytes that open sessions have carried so far, by backend."""
        sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for ticket, bytes_in, bytes_out in self._engine.carried():
            sum_in, sum_out = sums[ticket.backend.id]
            sums[ticket.backend.id] = (sum_in + bytes_in, sum_out + bytes_out)
        return sums

    def _backends(
        self, carried: dict[str, tuple[int, int]], now: float
    ) -> Iterator[BackendSnapshot]:
        from edgeproxy.core.routing.backend_snapshot import backend_snapshot

        verdicts = self.verdicts()
        idle = self._pool_waiting()
        return (
            backend_snapshot(
                candidate,
                now,
                verdicts.get(candidate.backend.id),
                warm=idle.get(candidate.backend.id, 0),
                carried=carried.get(candidate.backend.id, (0, 0)),
            )
            for candidate in list(self._admission.table.candidates.values())
            if candidate.live.active or not candidate.backend.deleted
        )
