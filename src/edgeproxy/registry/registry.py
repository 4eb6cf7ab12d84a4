"""The backends of one POP: they register, send heartbeats and leave, and operators change them.

A call that changes something returns when the gate uses the change. A heartbeat renews a
lease in memory and writes nothing. `LeaseWatch` ends the leases of silent backends.

A request that is refused raises a RegistryError, or a RowError for a value that is not allowed.

For the control plane's event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from edgeproxy.control.observe.json_pieces import array, encoded
from edgeproxy.control.observe.renderer import BusyError, Pieces
from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.destination import Own, registration_fault
from edgeproxy.core.backends.health import Verdict
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import (
    CrowdedError,
    Deregister,
    NotYoursError,
    OperatorsRowError,
    Outcome,
    Register,
)
from edgeproxy.core.backends.rows import RowError, parse_node, parse_row
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.core.routing.backend_snapshot import backend_snapshot
from edgeproxy.core.routing.ranking import Candidate
from edgeproxy.errors import StoreError
from edgeproxy.log import EventLog
from edgeproxy.registry.errors import (
    ConflictError,
    ForbiddenAddressError,
    InvalidClientError,
    NotOwnerError,
    NotRegisteredError,
    NotReplicatedError,
    StoreUnavailableError,
    TooManyBackendsError,
    UnavailableError,
    UnknownBackendError,
)
from edgeproxy.registry.lease_watch import LeaseWatch
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from edgeproxy.registry.published import PublishedTable
from edgeproxy.registry.settings import RegistrySettings
from edgeproxy.registry.views import (
    BackendView,
    Health,
    Readiness,
    ReadinessCheck,
    TableView,
    backend_view,
    candidates_of,
    health_of,
    lease_of,
    table_view,
)
from edgeproxy.registry.writer import RegistrationWriter
from edgeproxy.store.edits import (
    DISABLED,
    ENABLED,
    LEASE_ENDED,
    Node,
    NodeEdits,
    RefusedError,
    RegisteredRows,
    UnknownNodeError,
)

log = EventLog("registry")

_WRITTEN = {"enable": ENABLED, "disable": DISABLED}
"""What an action without values writes."""


class Registry:
    """The registry of one POP.

    `follow` reads the database and publishes what it holds; `in_force` returns the backends that
    were published last, `why_skipped` why a row was not. While `is_stopping` returns True,
    requests that would write are refused. `own` returns the addresses of this proxy, where no
    backend can be. `caller` is the address that a request comes from.

    Attributes:
        missed_heartbeats: What is told which heartbeats could not come through.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        rows: RegisteredRows,
        nodes: NodeEdits,
        admission: Admission,
        status: Status,
        metrics: Metrics,
        follow: Callable[[], Awaitable[object]],
        in_force: Callable[[], tuple[Backend, ...]],
        why_skipped: Callable[[str], str | None],
        is_stopping: Callable[[], bool],
        own: Callable[[], Own],
    ) -> None:
        self._why_skipped = why_skipped
        self._is_stopping = is_stopping
        self._own = own
        self._settings = settings
        self._nodes = nodes
        self._admission = admission
        self._status = status
        self._readiness = ReadinessCheck(admission)
        self._leases = Leases(settings.heartbeat_ttl_secs)
        self._table = PublishedTable(admission, status, self._leases, follow, in_force)
        self._writer = RegistrationWriter(rows, self._leases, self._table, metrics)
        self.missed_heartbeats = MissedHeartbeats(self._leases, self._table.backends)
        self._lease_watch = LeaseWatch(
            self._leases, self._writer, self._table, self.missed_heartbeats, metrics
        )

    @property
    def ttl_secs(self) -> float:
        """How long a registered backend may be silent."""
        return self._leases.ttl_secs

    async def load(self) -> None:
        """Begin a lease for every backend that is registered here, if the database can be read."""
        await self._lease_watch.load()

    async def watch(self) -> None:
        """End leases when they are due, until this is cancelled."""
        await self._lease_watch.run()

    def close(self) -> None:
        """Write nothing any more."""
        self._writer.close()

    # -- what is known -----------------------------------------------------------------

    def health(self) -> Health:
        """Return the health of this process."""
        return health_of(self._status, self._table.count(), self._admission.table.pop_region)

    def cluster(self) -> Mapping[str, Any]:
        """Return what the agent of the cluster said last."""
        found = self._status.cluster()
        if found is None:
            raise NotReplicatedError
        return found

    def readiness(self) -> Readiness:
        """Return whether clients would be served."""
        return self._readiness.now(time.monotonic(), stopping=self._is_stopping())

    def table(self, rest: Pause = no_pause) -> TableView:
        """Return the state of the table in force. Slow with many backends: for a thread."""
        published_at, now = self._status.published_at, time.monotonic()
        return table_view(self._admission, self._leases, published_at, now, rest)

    async def table_state(self) -> Pieces:
        """Return the state of the table in force, as JSON."""
        answer = self._status.renderer.answer
        return await self._rendered(answer(("table",), lambda rest: [encoded(self.table(rest))]))

    def first_views(self, most: int) -> list[BackendView]:
        """Return up to so many backends that are not deleted. May run in a thread."""
        verdicts = self._status.verdicts()
        listed = (each for each in candidates_of(self._admission) if not each.backend.deleted)
        return [self._view(each, verdicts) for each in islice(listed, most)]

    async def views(self) -> Pieces:
        """Return all backends that are not deleted and how many they are, as JSON."""
        return await self._rendered(self._status.renderer.answer(("backends",), self._views))

    def _views(self, rest: Pause) -> Pieces:
        verdicts, version = self._status.verdicts(), self._admission.table.version
        shown = [each for each in candidates_of(self._admission) if not each.backend.deleted]
        listed = array(self._view(each, verdicts) for each in paced(shown, rest))
        tail = b',"total":%d,"table_version":%d}' % (len(shown), version)
        return [b'{"backends":', *listed, tail]

    def view(self, backend_id: str) -> BackendView:
        """Return one backend."""
        candidate = self._admission.table.candidates.get(backend_id)
        if candidate is None:
            raise self._unknown(backend_id)
        return self._view(candidate, self._status.verdicts())

    async def explain(self, client: str, scope: str | None) -> Pieces:
        """Return which backend a client would get now, as JSON."""
        try:
            return await self._rendered(self._status.explanation(client, scope))
        except ValueError:
            raise InvalidClientError(client) from None

    async def sessions(self) -> Pieces:
        """Return an array of the open sessions, as JSON."""
        return await self._rendered(self._status.sessions())

    async def _rendered(self, answer: Awaitable[Pieces]) -> Pieces:
        try:
            return await answer
        except BusyError as error:
            raise UnavailableError(str(error), retry_after_secs=1) from None

    def _view(self, candidate: Candidate, verdicts: Mapping[str, Verdict]) -> BackendView:
        now = time.monotonic()
        backend_id = candidate.backend.id
        snapshot = backend_snapshot(candidate, now, verdicts.get(backend_id))
        return backend_view(snapshot, lease_of(self._leases, backend_id, now))

    # -- what backends do --------------------------------------------------------------

    async def register(self, row: Mapping[str, object], caller: str) -> tuple[BackendView, bool]:
        """Store a backend and route to it; return it, and whether it is new.

        `row` has the columns of `core/backends/rows.parse_node`.
        """
        self._check_running()
        backend = parse_node(row)
        self._check_destination(backend, caller)
        before = self._table.backends().get(backend.id)
        self._check_owner(backend.wg_ip, caller, "ip")
        if before is not None and not before.deleted:
            self._check_owner(before.wg_ip, caller, "id")
        self._leases.beat(backend.id, time.monotonic())
        edit = Register(backend, self._settings.max_backends, self._owner(caller))
        is_new = _done(await self._writer.write(edit))
        self.missed_heartbeats.heard(backend.id, caller)
        if is_new:
            log.info("backend_registered", backend=backend.id, address=backend.address)
        return self._stored_view(backend.id), is_new

    def beat(self, backend_id: str, caller: str) -> None:
        """Renew the lease of a backend."""
        backend = self._table.backends().get(backend_id)
        if backend is not None:
            self._check_owner(backend.wg_ip, caller, "id")
        if not self._leases.beat(backend_id, time.monotonic()):
            if backend is None:
                raise self._unknown(backend_id)
            raise NotRegisteredError
        self.missed_heartbeats.heard(backend_id, caller)

    async def deregister(self, backend_id: str, caller: str) -> None:
        """Take a registered backend out of the table and the database."""
        self._check_running()
        edit = Deregister(backend_id, caller=self._owner(caller))
        if _done(await self._writer.write(edit)):
            log.info("backend_deregistered", backend=backend_id, reason="asked")
        elif backend_id in self._table.backends():
            raise ConflictError("it never registered: remove it with `edgeproxy node delete`", "id")
        else:
            raise self._unknown(backend_id)

    # -- what operators do -------------------------------------------------------------

    async def change(self, backend_id: str, caller: str, action: str, **values: int) -> BackendView:
        """Edit the row of a backend, as `edgeproxy node ACTION` does.

        A row that is skipped is changed only if it is right then.
        """
        self._check_running()
        self._check_owner_of(backend_id, caller)
        actions: dict[str, Callable[..., Node]] = {
            "enable": self._nodes.enable,
            "disable": self._nodes.disable,
            "weight": self._nodes.set_weight,
            "limits": self._nodes.set_limits,
        }
        try:
            if backend_id not in self._table.backends():
                node = await self._writer.run(partial(self._nodes.get, backend_id))
                if node.fault == LEASE_ENDED:
                    raise self._unknown(backend_id)
                written = _WRITTEN.get(action, values)
                self._check_mended({**node.values, **written}, backend_id)
            await self._writer.run(partial(actions[action], backend_id, **values))
            await self._table.publish()
        except UnknownNodeError:
            raise UnknownBackendError(backend_id) from None
        except RefusedError as error:
            raise ConflictError(str(error)) from None
        except StoreError as error:
            raise StoreUnavailableError(error) from None
        log.info("backend_changed", backend=backend_id, action=action, **values)
        return self._stored_view(backend_id)

    async def drain(self, backend_id: str, caller: str, draining: bool) -> BackendView:
        """Give a backend no new clients, or clients again."""
        self._check_owner_of(backend_id, caller)
        if backend_id not in self._table.backends():
            raise self._unknown(backend_id)
        await self._table.on_gate(lambda: self._status.drain(backend_id, draining))
        return self.view(backend_id)

    def _check_mended(self, values: Mapping[str, object], backend_id: str) -> None:
        """Refuse a change after which the row would still be skipped."""
        try:
            backend = parse_row(values)
        except RowError as error:
            raise ConflictError(f"its row is faulty, and would still be: {error}", "id") from None
        if any(self._own().circular([backend])):
            raise self._unknown(backend_id)

    def _stored_view(self, backend_id: str) -> BackendView:
        """Return a backend whose row has just been written."""
        try:
            return self.view(backend_id)
        except UnknownBackendError:
            raise UnavailableError(
                "the backend is stored and comes into force when its row can be read and used again"
            ) from None

    # -- what is refused ---------------------------------------------------------------

    def _check_running(self) -> None:
        if self._is_stopping():
            raise UnavailableError("the proxy is being stopped")

    def _unknown(self, backend_id: str) -> UnknownBackendError:
        """Return the fault of an id that is not in force, with the reason if its row is skipped."""
        return UnknownBackendError(backend_id, self._why_skipped(backend_id))

    def _owner(self, caller: str) -> str | None:
        """Return the address of the backends that this caller may change, None for any."""
        return caller if self._settings.own_address_only else None

    def _check_owner_of(self, backend_id: str, caller: str) -> None:
        if self._settings.own_address_only:
            backend = self._table.backends().get(backend_id)
            if backend is None:  # so its address is not known
                raise self._unknown(backend_id)
            self._check_owner(backend.wg_ip, caller, "id")

    def _check_destination(self, backend: Backend, caller: str) -> None:
        fault = registration_fault(
            backend.wg_ip, backend.port, caller, self._own(), self._settings.register_networks
        )
        if fault is not None:
            raise ForbiddenAddressError(fault)

    def _check_owner(self, address: str, caller: str, field: str) -> None:
        if self._settings.own_address_only and address != caller:
            raise NotOwnerError(field)


def _done(outcome: Outcome) -> bool:
    """Return whether an edit took effect. Raises RegistryError if it was refused."""
    if isinstance(outcome, NotYoursError):
        raise NotOwnerError("id")
    if isinstance(outcome, OperatorsRowError):
        raise ConflictError(str(outcome), "id")
    if isinstance(outcome, RefusedError):
        raise ConflictError(str(outcome))
    if isinstance(outcome, CrowdedError):
        raise TooManyBackendsError(str(outcome))
    if isinstance(outcome, StoreError):
        raise StoreUnavailableError(outcome)
    return outcome
