"""One POP: the real engine, with its glue, on a simulated machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from edgeproxy.cluster.builtin.engine import BuiltinEngine
from edgeproxy.cluster.engine import EngineError
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import ROUTES, TABLES, Edit, Table
from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.errors import StateError
from edgeproxy.values import ListenAddress, Secret
from tests.sim.loop import Loop, Scheduler, sleep
from tests.sim.mix import Mix
from tests.sim.network import REGIONS, Network, Transport, Udp
from tests.sim.oracle import Oracle
from tests.sim.routing import Routing
from tests.sim.store import Crash, Disk, FileDisk, Fuse, MemoryDisk

START_MS = 1_900_000_000_000
LOOK_UP_SECS = 20.0
PLAIN = TABLES[ROUTES]
LATER = Table(PLAIN.keys, {**PLAIN.groups, "later": ("later",)})
"""The table of routes in a later release, which has one more group."""


class Machines:
    """What all POPs share.

    Attributes:
        acting: The POP that acts now.
        elapsed_ms: How much longer it is since the start than virtual time says: weeks.
    """

    def __init__(self, rng: Random, mix: Mix, folder: Path | None) -> None:
        self.rng = rng
        self.mix = mix
        self.folder = folder
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, rng)
        self.oracle = Oracle()
        self.acting: list[Pop] = []
        self.elapsed_ms = 0
        self.pops: dict[str, Pop] = {}
        self.tell: Callable[[str], object] = lambda _: None

    @property
    def here(self) -> Pop:
        return self.acting[-1]

    def new_disk(self, pop: Pop) -> Disk:
        if not self.mix.files:
            return MemoryDisk(pop.fuse, f"disk-{pop.number}")
        assert self.folder is not None
        return FileDisk(self.folder / f"{pop.name}.state", pop.fuse)


class Pop:
    """One POP and its machine.

    Attributes:
        life: Which process this is.
        routes: The table of routes in its release.
        backups: Of the disk.
    """

    def __init__(self, machines: Machines, number: int, contacts: Sequence[str]) -> None:
        self.number = number
        self.name = f"pop-{number}"
        self.rng = Random(machines.rng.getrandbits(64))
        self.region = self.rng.choice(REGIONS)
        self.host = f"10.0.{number // 250}.{number % 250 + 1}"
        self.skew_ms = 0
        self.is_up = False
        is_later = machines.mix.is_mixed and self.rng.random() < 0.5
        self.routes = LATER if is_later else PLAIN
        self.resumes_at = 0.0
        self.life = 0
        self.fuse = Fuse(
            lambda pushes: machines.oracle.committed(self.name, pushes, self.disk.vector())
        )
        self.disk = machines.new_disk(self)
        self.backups: list[Any] = []
        self.loop: Loop
        self.udp: Udp
        self.transport: Transport
        self.engine: BuiltinEngine
        self.routing: Routing | None = None
        self._machines = machines
        self._contacts = contacts
        self._checked = 0
        self.settings = ReplicationSettings(
            enabled=True,
            node_id=self.name,
            gossip_addr=ListenAddress(self.host, 4001),
            transport_addr=ListenAddress(self.host, 4002),
            bootstrap_peers=tuple(Peer(each, 4001) for each in contacts if each != self.host),
            sync_interval_ms=machines.mix.sync_ms,
            keys=Secret(""),
        )
        machines.pops[self.name] = self
        if machines.mix.bridges:
            assert machines.folder is not None
            self.routing = Routing(
                machines.folder,
                self.name,
                self.rng,
                lambda: self.wall_ms,
                lambda: machines.scheduler.now,
            )

    @property
    def wall_ms(self) -> int:
        """The wall time of this machine."""
        machines = self._machines
        ms = int(machines.scheduler.now * 1000)
        return START_MS + machines.elapsed_ms + ms + self.skew_ms

    @property
    def replica(self) -> Replica:
        return self.engine._replica._replica

    @property
    def is_paused(self) -> bool:
        return self.resumes_at > self._machines.scheduler.now

    # -- processes -------------------------------------------------------------------

    def guard(self, do: Callable[[], object]) -> Callable[[], object]:
        """Return what does it if the process still lives, as soon as it does not stand still."""
        life = self.life

        def guarded() -> None:
            if self.is_up and self.life == life:
                if self.is_paused:
                    self._machines.scheduler.at(self.resumes_at, guarded)
                else:
                    self.act(do)

        return guarded

    def later(self, secs: float, do: Callable[[], object]) -> None:
        self._machines.scheduler.after(secs, self.guard(do))

    def act(self, do: Callable[[], object]) -> None:
        """Let the process do something. It ends where a store says so."""
        self._machines.acting.append(self)
        if self._machines.mix.is_mixed:
            TABLES[ROUTES] = self.routes  # type: ignore[index]
        try:
            do()
        except Crash:
            self._machines.tell(f"{self.name} crashes at a transaction")
            self.crash()
        except StateError:
            self.crash()
        finally:
            self._machines.acting.pop()
            if self._machines.mix.is_mixed:
                TABLES[ROUTES] = PLAIN  # type: ignore[index]
        self.check()

    def check(self) -> None:
        if self._checked != self.fuse.commits and self.is_up:
            self._checked = self.fuse.commits
            self._machines.oracle.check(self.name, self.disk)

    def start(self) -> None:
        """Start a process."""
        self._machines.tell(f"{self.name} starts")
        self.life += 1
        self.is_up = True
        self.resumes_at = 0.0
        self.fuse.reset()
        if isinstance(self.disk, FileDisk) and self.life > 1:
            self.disk = FileDisk(self.disk_path, self.fuse)
        self.loop = Loop(self._machines.scheduler, self.guard)
        self.act(self._begin)

    @property
    def disk_path(self) -> Path:
        assert self._machines.folder is not None
        return self._machines.folder / f"{self.name}.state"

    def _begin(self) -> None:
        machines = self._machines
        self.engine = BuiltinEngine(self.settings, self.name, self.life, self.region)
        with suppress(StopIteration):
            self.engine.start(self._woken).send(None)
            raise AssertionError("the start waits for something")
        if machines.mix.gossips:
            self.loop.start(self._look_up())
        else:
            for other in machines.pops.values():
                if other is not self:
                    self.transport.connect(other.name, other.host)
                    if other.is_up:
                        other.transport.connect(self.name, self.host)
        if self.routing is not None:
            self.routing.begin(self.engine, self.disk)
            self.loop.start(self.routing.run())

    def new_udp(self, address: ListenAddress) -> Udp:
        self.udp = Udp(self, self._machines.network, address)
        self.udp.wake = self.guard(self.loop.read)
        return self.udp

    def new_transport(self, *calls: Callable[..., object]) -> Transport:
        self.transport = Transport(self, self._machines.network, *calls)
        self._machines.network.add(self, self.host)
        return self.transport

    async def _look_up(self) -> None:
        contacts = [Address(each, 4001) for each in self._contacts]
        while True:
            self.engine._membership.meet(contacts, self._machines.scheduler.now)
            await sleep(LOOK_UP_SECS)

    def _woken(self) -> None:
        if self.routing is not None:
            self.routing.is_due = True

    def crash(self) -> None:
        """End the process, now."""
        if not self.is_up:
            return
        self.check()
        self._end()
        if isinstance(self.disk, FileDisk):
            self.disk.close()

    def stop(self) -> None:
        """Begin to stop the process in order."""
        self.loop.start(self._stop())

    async def _stop(self) -> None:
        if self.routing is not None:
            self.routing.is_over = True
        self.fuse.is_full = False
        await self.engine.stop()
        self._machines.tell(f"{self.name} has stopped")
        self.check_last()
        self._end()

    def check_last(self) -> None:
        if not isinstance(self.disk, FileDisk):
            self.check()

    def _end(self) -> None:
        self.is_up = False
        self.life += 1
        self.fuse.reset()
        self.loop.close()
        self._machines.network.gone(self)
        if self.routing is not None:
            self.routing.end()

    # -- what happens to it ----------------------------------------------------------

    def write(self, edits: Sequence[Edit]) -> None:
        """Commit edits, as a bridge does."""
        token = f"{self.rng.getrandbits(64):x}"
        with suppress(EngineError):
            self.engine.commit(edits, token, self.engine.last_token(), self.wall_ms)

    def pause(self, secs: float) -> None:
        self.resumes_at = self._machines.scheduler.now + secs

    def back_up(self) -> None:
        """Keep a copy of the disk as it is."""
        if isinstance(self.disk, MemoryDisk):
            self.backups.append(self.disk.copy()._state)
        else:
            path = self.disk_path.with_suffix(f".backup{len(self.backups)}")
            if not self.is_up:
                self.disk = FileDisk(self.disk_path, self.fuse)
            self.disk.back_up(path)
            if not self.is_up:
                self.disk.close()
            self.backups.append(path)

    def restore(self) -> None:
        """Replace the disk by a backup, and start. The process must have ended."""
        backup = self.rng.choice(self.backups)
        if isinstance(self.disk, MemoryDisk):
            self.disk._state = backup
            self.disk._state = self.disk.copy()._state
            self._machines.oracle.restored(self.name, self.disk)
        else:
            for suffix in ("-wal", "-shm"):
                self.disk_path.with_name(self.disk_path.name + suffix).unlink(missing_ok=True)
            shutil.copy(backup, self.disk_path)
            self.disk = FileDisk(self.disk_path, self.fuse)
            self._machines.oracle.restored(self.name, self.disk)
            self.disk.close()
        self.start()
