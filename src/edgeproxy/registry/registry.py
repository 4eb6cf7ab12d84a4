"""The backends that register themselves: stored, routed to and watched; the API's directory.

An answer is given when what was asked for is in force. A heartbeat writes nothing.

A backend whose lease expires takes no new clients from that moment; then its row is deleted.
While the database cannot be written it stays withheld, and deleting it is tried again. Now and
then, and before any lease expires, the database is asked who has registered elsewhere since: those
are not ours to end, and get 404 here.

For the control plane's event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from edgeproxy.api.bodies import BackendView, HeartbeatAccepted, Registration
from edgeproxy.api.fault import FaultError, unknown
from edgeproxy.api.settings import ApiSettings
from edgeproxy.control.observe.status import Status
from edgeproxy.core.admission.admission import Admission
from edgeproxy.core.admission.explanation import Decision
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import (
    CrowdedError,
    Deregister,
    Edit,
    NotYoursError,
    Outcome,
    Register,
)
from edgeproxy.core.backends.rows import COUNTRY, RowError, parse_node
from edgeproxy.core.metrics import Metrics
from edgeproxy.errors import StoreError, UsageError
from edgeproxy.log import EventLog
from edgeproxy.registry.views import Listing
from edgeproxy.registry.writer import RegistrationWriter
from edgeproxy.store.edits import Node, NodeEdits, RefusedError, RegisteredRows, UnknownNodeError

log = EventLog("registry")

T = TypeVar("T")

LOOK_SECS = 1.0
"""The longest pause between two looks at the leases."""
ASK_SECS = 1.0
"""How long the database may take to say whose leases are ours; then they expire all the same."""
ASKS_IN_TTL = 4
"""How often it is asked in a TTL: with heartbeats every third of one, whoever registered elsewhere
and shows life here hears in time that it has to register."""
LATE_SECS = ASK_SECS + 0.5
"""A look that comes later than this was held up: nobody could be heard."""
GATE_SECS = 5.0


class Registry(Listing):
    """The directory of one POP.

    `follow` puts into force what is stored; `in_force` returns the backends that are. While it is
    `stopping`, nothing is written.
    """

    def __init__(
        self,
        settings: ApiSettings,
        rows: RegisteredRows,
        nodes: NodeEdits,
        admission: Admission,
        status: Status,
        metrics: Metrics,
        follow: Callable[[], Awaitable[object]],
        in_force: Callable[[], tuple[Backend, ...]],
    ) -> None:
        super().__init__(Leases(settings.ttl_secs), admission, status, in_force)
        self._settings = settings
        self._nodes = nodes
        self._metrics = metrics
        self._follow = follow
        self._overdue: set[str] = set()
        self._is_loaded = False
        self._ask_at = 0.0
        self._writer = RegistrationWriter(rows, self._publish, self._is_void, self._settle)
        self._begun: set[asyncio.Task[None]] = set()

    # -- the leases --------------------------------------------------------------------

    async def watch(self) -> None:
        """See to it that leases expire."""
        last = time.monotonic()
        while True:
            first = self.leases.next_at()
            if self.leases.holding:
                pause_secs = min(self.leases.ttl_secs / 10, LOOK_SECS)
            else:
                pause_secs = (
                    LOOK_SECS if first is None else min(max(first - last, 0.001), LOOK_SECS)
                )
            await asyncio.sleep(pause_secs)
            now = time.monotonic()
            if now - last - pause_secs > LATE_SECS:
                self.leases.excuse(now - last, now)
            last = now
            try:
                await self._look(now)
            except Exception:  # noqa: BLE001
                log.bug("leases_failed")

    async def load(self) -> None:
        """Give whoever is registered a new lease, once it can be read who that is."""
        try:
            known = await self._writer.known()
        except StoreError as error:
            log.debug("leases_unread", reason=error)
            return
        self._is_loaded = True
        now = time.monotonic()
        for backend_id in known & self.backends().keys():
            if backend_id not in self.leases:
                self.leases.register(backend_id, now)
        self._count()

    async def _look(self, now: float) -> None:
        if not self._is_loaded:
            await self.load()
        self.backends()
        due_at = self.leases.next_at()
        if due_at is not None and (due_at <= now or self._ask_at <= now):
            self._ask_at = now + self.leases.ttl_secs / ASKS_IN_TTL
            await self._forget_moved()
        was_holding = self.leases.holding
        expired = self.leases.expired(now)
        if self.leases.holding and not was_holding:
            log.warning("leases_held_back", leases=len(self.leases))
        elif was_holding and not self.leases.holding:
            log.info("leases_resumed", leases=len(self.leases))
        for backend_id in expired:
            log.warning("lease_expired", backend=backend_id, ttl_secs=self.leases.ttl_secs)
        if expired:
            await self._mark(expired, expired=True)
        self._overdue.update(expired)
        self._count()
        if self._overdue:
            self._overdue = {each for each in self._overdue if each not in self.leases}
            self._begin(self._remove(list(self._overdue)))
            self._overdue.clear()

    async def _forget_moved(self) -> None:
        """End the leases of those that have another home now."""
        asked = set(self.leases)
        try:
            ours = await asyncio.wait_for(self._writer.known(), ASK_SECS)
        except (StoreError, TimeoutError):
            return
        for backend_id in asked - ours:
            self.leases.forget(backend_id)

    async def _remove(self, overdue: list[str]) -> None:
        """Delete the rows of those whose lease has expired."""
        outcomes = await asyncio.gather(
            *(self._writer.write(Deregister(each, is_expired=True)) for each in overdue)
        )
        moved = []
        for backend_id, outcome in zip(overdue, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                if backend_id not in self.leases:
                    self._overdue.add(backend_id)
            elif outcome:
                log.info("backend_deregistered", backend=backend_id, reason="expired")
            else:
                moved.append(backend_id)
        if moved:
            await self._mark(moved, expired=False)

    async def _mark(self, backend_ids: Iterable[str], *, expired: bool) -> None:
        def mark() -> None:
            for each in backend_ids:
                live = self._admission.load.known(each)
                if live is not None and live.lease_expired is not expired:
                    self._admission.expire(each, expired)

        await self._on_gate(mark)

    def _count(self) -> None:
        self._metrics.leases = len(self.leases)
        self._metrics.leases_expired = self.leases.expired_total
        self._metrics.leases_held_back = self.leases.held_back

    # -- what was written --------------------------------------------------------------

    def _is_void(self, edit: Edit) -> bool:
        """Return whether this is the end of a lease that was given anew."""
        return isinstance(edit, Deregister) and edit.is_expired and edit.backend_id in self.leases

    async def _settle(self, edits: list[Edit], outcomes: list[Outcome]) -> None:
        """Give and end leases as was written, and wait until decisions go by it."""
        now = time.monotonic()
        heard = []
        for edit, outcome in zip(edits, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                continue
            if isinstance(edit, Deregister):
                if outcome or not edit.is_expired:
                    self.leases.forget(edit.backend_id)
                continue
            self.leases.register(edit.backend.id, now)
            heard.append(edit.backend.id)
        self._count()
        if heard:  # also of those about to be marked: the gate does it in this order
            await self._mark(heard, expired=False)

    async def _publish(self) -> None:
        """Put into force what is stored, and wait until decisions go by it."""
        await self._follow()
        await self._on_gate(self._admission.adopt)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _on_gate(self, function: Callable[[], T]) -> T:
        return await asyncio.wait_for(self._status.on_gate(function), GATE_SECS)

    def close(self) -> None:
        """Write nothing any more."""
        self.stopping = True
        self._writer.close()

    # -- the directory -----------------------------------------------------------------

    async def register(self, wanted: Registration, caller: str) -> tuple[BackendView, bool]:
        """Store a backend and route to it; return it, and whether it is new."""
        self._may_write()
        backend = backend_of(wanted)
        before = self.backends().get(backend.id)
        self._check_owner(backend.wg_ip, caller, "ip")
        if before is not None and not before.deleted:
            self._check_owner(before.wg_ip, caller, "id")
        self.leases.beat(backend.id, time.monotonic())
        put = Register(backend, self._settings.max_backends, self._owner(caller))
        outcome = _unless_refused(await self._writer.write(put))
        if outcome:
            log.info("backend_registered", backend=backend.id, address=backend.address)
        try:
            return self.view(backend.id), outcome
        except FaultError:
            raise FaultError(
                503, "it is stored, but the routing database cannot be read now; it will be used"
            ) from None

    def beat(self, backend_id: str, caller: str) -> HeartbeatAccepted:
        """Renew the lease of a backend."""
        backend = self.backends().get(backend_id)
        if backend is not None:
            self._check_owner(backend.wg_ip, caller, "id")
        if not self.leases.beat(backend_id, time.monotonic()):
            if backend is None:
                raise unknown(backend_id)
            raise FaultError(404, "this backend is not registered: register it", "id")
        return HeartbeatAccepted(backend_id, "ok", self.leases.ttl_secs)

    async def deregister(self, backend_id: str, caller: str) -> None:
        """Take a registered backend out of the table and the store."""
        self._may_write()
        leave = Deregister(backend_id, caller=self._owner(caller))
        if _unless_refused(await self._writer.write(leave)):
            log.info("backend_deregistered", backend=backend_id, reason="asked")
        elif backend_id in self.backends():
            raise FaultError(409, "it did not register: `edgeproxy node delete` takes it out", "id")
        else:
            raise unknown(backend_id)

    async def change(self, backend_id: str, caller: str, action: str, **values: int) -> BackendView:
        """Do what `edgeproxy node ACTION` does."""
        self._may_write()
        self._check_known_owner(backend_id, caller)
        todo: dict[str, Callable[..., Node]] = {
            "enable": self._nodes.enable,
            "disable": self._nodes.disable,
            "weight": self._nodes.set_weight,
            "limits": self._nodes.set_limits,
        }
        try:
            node = await self._writer.run(partial(todo[action], backend_id, **values))
            await self._publish()
        except RowError as error:
            raise FaultError(400, error.reason, error.field) from None
        except UnknownNodeError:
            raise unknown(backend_id) from None
        except (StoreError, UsageError) as error:
            raise FaultError(503, _reason(error), headers={"Retry-After": "1"}) from None
        log.info("backend_changed", backend=backend_id, action=action, **values)
        if node.fault is not None:
            raise FaultError(409, f"it is changed, but its row is faulty: {node.fault}", "id")
        return self.view(backend_id)

    async def drain(self, backend_id: str, caller: str, draining: bool) -> BackendView:
        """Give a backend no new clients, or clients again."""
        self._check_known_owner(backend_id, caller)
        if backend_id not in self.backends():
            raise unknown(backend_id)
        await self._on_gate(lambda: self._status.drain(backend_id, draining))
        return self.view(backend_id)

    async def explain(self, client: str, scope: str | None) -> Decision:
        """Return which backend a client would get now."""
        try:
            return await self._on_gate(lambda: self._status.explain(client, scope))
        except ValueError:
            raise FaultError(400, "client is not an IPv4 or IPv6 address", "client") from None

    async def sessions(self) -> list[dict[str, Any]]:
        """Return the open connections."""
        return await asyncio.to_thread(self._status.sessions)

    def _may_write(self) -> None:
        if self.stopping:
            raise FaultError(503, "the proxy is being stopped")

    def _owner(self, caller: str) -> str | None:
        """Return for which address alone this caller may speak, None for any."""
        return caller if self._settings.own_address_only else None

    def _check_known_owner(self, backend_id: str, caller: str) -> None:
        if self._settings.own_address_only:
            backend = self.backends().get(backend_id)
            if backend is None:  # so whose it is cannot be told
                raise unknown(backend_id)
            self._check_owner(backend.wg_ip, caller, "id")

    def _check_owner(self, address: str, caller: str, field: str) -> None:
        if self._settings.own_address_only and address != caller:
            raise _not_yours(field)


def backend_of(wanted: Registration) -> Backend:
    """Return the backend that is to be registered. Raises FaultError."""
    try:
        return parse_node(
            {
                "id": wanted.id,
                "app": wanted.app,
                "region": wanted.region,
                "wg_ip": wanted.ip,
                "port": wanted.port,
                "healthy": 1,
                "weight": wanted.weight,
                "soft_limit": wanted.soft_limit,
                "hard_limit": wanted.hard_limit,
                "deleted": 0,
                COUNTRY: wanted.country,
            }
        )
    except RowError as error:
        raise FaultError(
            400,
            error.reason.replace("wg_ip", "ip", 1),
            "ip" if error.field == "wg_ip" else error.field,
        ) from None


def _not_yours(field: str) -> FaultError:
    return FaultError(
        403,
        "a backend may speak only for the address that it calls from; see "
        "EDGEPROXY_API_OWN_ADDRESS_ONLY",
        field,
    )


def _unless_refused(outcome: Outcome) -> bool:
    """Return what was done. Raises FaultError if it was not."""
    if isinstance(outcome, NotYoursError):
        raise _not_yours("id")
    if isinstance(outcome, RefusedError):
        raise FaultError(409, str(outcome))
    if isinstance(outcome, CrowdedError):
        raise FaultError(503, str(outcome), headers={"Retry-After": "60"})
    if isinstance(outcome, StoreError):
        raise FaultError(503, _reason(outcome), headers={"Retry-After": "1"})
    return outcome


def _reason(error: Exception) -> str:
    """Return why the database cannot be written, without what it is called."""
    return f"the routing database {getattr(error, 'reason', error)}"
