"""The parts behind a registry: a routing database in a file, a table in force, an engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeproxy.control.observe.status import Status
from edgeproxy.control.observe.status_snapshot import Surroundings
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.registration import (
    Deregister,
    Edit,
    End,
    Outcome,
    Ownership,
    Register,
)
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.engine.portable.engine import PortableEngine
from edgeproxy.registry.lease_watch import LeaseWatch
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from edgeproxy.registry.published import PublishedTable
from edgeproxy.registry.writer import RegistrationWriter
from edgeproxy.store.sqlite.registrations import Registrations
from edgeproxy.store.sqlite.store import SqliteStore
from tests.conformance.gates import ScriptedGate
from tests.store.editing import execute

NODE = Backend("", "myapp", "sa", "10.0.0.1", 80)
DEADLINE_SECS = 20.0


def registering(backend_id: str) -> Register:
    """Return the registration of a backend."""
    return Register(replace(NODE, id=backend_id), most=100)


class HeldRows:
    """Registered backends in a file; a test sees, holds up or breaks their transactions.

    Attributes:
        batches: The edits of each transaction that was begun.
        fault: What reading and writing raise; None: nothing.
        go_on: Writes wait until it is set.
    """

    def __init__(self, path: Path, home: str = "") -> None:
        self.batches: list[list[Edit]] = []
        self.fault: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self._rows = Registrations(path, 2.0, home)

    def ownership(self) -> Ownership:
        if self.fault is not None:
            raise self.fault
        return self._rows.ownership()

    def apply(self, edits: Sequence[Edit]) -> list[Outcome]:
        self.batches.append(list(edits))
        assert self.go_on.wait(DEADLINE_SECS)
        if self.fault is not None:
            raise self.fault
        return self._rows.apply(edits)


class RegistryPop:
    """All that the parts of a registry need, for one test.

    Attributes:
        is_blind: What the database holds cannot be read for a new table.
    """

    def __init__(self, folder: Path, ttl_secs: float = 60.0) -> None:
        self.path = folder / "routing.db"
        self.store = SqliteStore(self.path)
        self.store.ensure()
        self.in_force: tuple[Backend, ...] = ()
        self.is_blind = False
        self.admission = Admission(
            AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin
        )
        self.crashes: list[BaseException] = []
        self.engine = PortableEngine(
            EngineSettings(kind="portable"), ScriptedGate(), self.crashes.append
        )
        self.engine.start()
        self.metrics = Metrics()
        status = Status(
            "",
            "sa",
            self.admission,
            self.metrics,
            self.engine,
            published_at=float,
            loop_lag_secs=float,
            verdicts=dict,
            pool_waiting=dict,
            certificates=lambda: None,
            access_lines_dropped=int,
            surroundings=Surroundings,
        )
        self.leases = Leases(ttl_secs)
        self.table = PublishedTable(
            self.admission, status, self.leases, self.follow, lambda: self.in_force
        )
        self.rows = HeldRows(self.path)
        self.writer = RegistrationWriter(self.rows, self.leases, self.table, self.metrics)
        self.missed_heartbeats = MissedHeartbeats(self.leases, self.table.backends)
        self.watch = LeaseWatch(
            self.leases, self.writer, self.table, self.missed_heartbeats, self.metrics
        )

    async def follow(self) -> None:
        """Publish what the database holds."""
        if self.is_blind:
            return
        self.in_force = (await asyncio.to_thread(self.store.read)).backends
        self.admission.publish(self.in_force)

    async def register(self, *backend_ids: str) -> list[Outcome]:
        """Register these backends at the same moment."""
        edits = [registering(each) for each in backend_ids]
        return list(await asyncio.gather(*map(self.writer.write, edits)))

    async def deregister(self, backend_id: str) -> Outcome:
        """Take a registered backend out."""
        return await self.writer.write(Deregister(backend_id))

    async def end(self, backend_id: str) -> Outcome:
        """End the lease of a backend."""
        return await self.writer.write(End(backend_id, 1000))

    def ids_in_database(self) -> set[str]:
        """Return the ids of all backends that are not withheld."""
        return {each.id for each in SqliteStore(self.path).read().backends}

    def elsewhere(self, edit: Edit) -> Outcome:
        """Let another POP write an edit."""
        (outcome,) = Registrations(self.path, 2.0, "other").apply([edit])
        return outcome

    def here(self) -> frozenset[str]:
        """Return the backends whose lease at this POP is live in the database."""
        return self.rows.ownership().here

    def age(self, secs: int) -> None:
        """Let leases have ended longer ago."""
        execute(self.path, f"UPDATE edgeproxy_leases SET ended_at = ended_at - {secs}")

    def is_expired(self, backend_id: str) -> bool:
        """Return whether the gate counts the lease of a backend as expired."""
        return self.admission.table.candidates[backend_id].live.lease_expired

    def close(self) -> None:
        """Stop; no part may have crashed."""
        self.rows.go_on.set()
        self.writer.close()
        self.engine.stop()
        self.store.close()
        assert not self.crashes
