"""One storm: when it rages, when it pauses to count, how it ends, and what is well then."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from pathlib import Path

from bench.storm.backend import Backend
from bench.storm.crowd import LAST_CLIENTS, Crowd
from bench.storm.fault import PATIENCE_SECS
from bench.storm.flapping import GUARDS, Flapping
from bench.storm.manner import MANNERS
from bench.storm.proxy import SHUTDOWN_SECS, Proxy
from bench.storm.report import Report, show
from bench.storm.trouble import Trouble

BACKENDS = 5
MEMORY_GROWTH = 0.10
MEMORY_SLACK_MB = 2.0
LOOKS, LOOK_SECS = 20, 0.05
PIPES_PER_THREAD = 64
"""Descriptors of the pipes that one byte thread keeps for its next bulk."""
DATABASE_DESCRIPTORS = 4
"""The database and its journal are open while it is read, and kept open while it is sound."""


class Storm:
    """One storm of `secs` against one engine: mixed, or of flapping backends."""

    def __init__(
        self, folder: Path, engine: str, secs: float, seed: int, *, is_flapping: bool
    ) -> None:
        self._report = Report(engine)
        self._secs = secs
        self._over = asyncio.Event()
        self._proxy = Proxy(folder, engine, GUARDS if is_flapping else {})
        self._backends = [Backend(number) for number in range(BACKENDS)]
        self._crowd = Crowd(self._proxy, seed, self._over)
        kind = Flapping if is_flapping else Trouble
        self._trouble = kind(self._proxy, self._backends, seed, self._over)
        self._samples: list[tuple[float, float]] = []

    async def run(self) -> Report:
        """Rage, and return what it has shown."""
        for backend in self._backends:
            backend.start()
        self._trouble.make_database()
        await self._proxy.start()
        try:
            await self._rage()
            await self._stop()
            self._trouble.tell(self._report, self._crowd.cut)
        finally:
            self._over.set()
            await self._proxy.kill()
            for backend in self._backends:
                await backend.close()
        return self._report

    async def _rage(self) -> None:
        await self._proxy.follows(self._backends[1].id)
        began = time.monotonic()
        at_start = await self._fewest_sockets()
        self._crowd.let_in()
        tasks = [
            asyncio.create_task(each())
            for each in (self._crowd.come, self._trouble.cause, self._sample)
        ]
        await asyncio.sleep(self._secs / 4)
        early = await self._lull(at_start)
        self._crowd.let_in()
        await asyncio.sleep(max(0.0, began + self._secs - time.monotonic()))
        late = await self._lull(at_start)
        self._over.set()
        self._crowd.let_in()
        await asyncio.gather(*tasks)
        self._tell_of_clients()
        self._tell_of_descriptors(at_start, early, late)
        self._tell_of_memory(began)

    async def _fewest_sockets(self) -> int:
        """Return how many it has by itself; probes come and go."""
        found = []
        for _ in range(LOOKS):
            found.append(self._proxy.descriptors()["socket"])
            await asyncio.sleep(LOOK_SECS)
        return min(found)

    async def _lull(self, sockets: int) -> Counter[str]:
        """Let everybody leave; return what is open when the proxy has forgotten them."""
        self._crowd.keep_out()
        deadline = time.monotonic() + PATIENCE_SECS
        while time.monotonic() < deadline:
            found = self._proxy.descriptors()
            if not self._crowd.inside and found["socket"] <= sockets:
                break
            await asyncio.sleep(LOOK_SECS)
        return found

    async def _sample(self) -> None:
        """Look at the memory two hundred times."""
        while not self._over.is_set():
            self._samples.append((time.monotonic(), self._proxy.memory_mb()))
            await asyncio.sleep(self._secs / 200)

    async def _stop(self) -> None:
        """Ask the proxy to stop while transfers are open, and read its last words."""
        before = len(self._crowd.faults)
        last = asyncio.create_task(self._crowd.come_last())
        await asyncio.sleep(0.5)
        self._proxy.send(signal.SIGTERM)
        await last
        code = await self._proxy.exit_code(SHUTDOWN_SECS + 10)
        self._tell_of_the_last(self._crowd.faults[before:])
        self._tell_of_the_log()
        self._report.note("exit code", code, is_good=code == 0)

    def _tell_of_clients(self) -> None:
        """Report what clients saw, and that they had reason to."""
        crowd, note = self._crowd, self._report.note
        deeds, wanted = self._trouble.deeds, self._trouble.wanted
        show(self._report.engine, crowd.faults)
        every_manner = {manner.__name__ for manner in MANNERS}
        note("clients", crowd.visits.total(), is_good=set(crowd.visits) == every_manner)
        note("GB checked", f"{crowd.heard_bytes / 1e9:.2f}", is_good=crowd.heard_bytes > 0)
        note("wrong, short, refused, late", len(crowd.faults), is_good=not crowd.faults)
        note("edits, faults and signals", deeds.total(), is_good=deeds.keys() >= wanted)
        note("tables published", len(self._proxy.seen("table_published")))

    def _tell_of_descriptors(self, sockets: int, early: Counter[str], late: Counter[str]) -> None:
        """Compare what was open in the two lulls."""
        note = self._report.note
        left = (late["socket"] - sockets) / 2
        note("sessions left", f"{left:g}", is_good=left == 0)
        pipes_limit = PIPES_PER_THREAD * len(os.sched_getaffinity(0))
        others = [each.total() - each["pipe"] for each in (early, late)]
        note(
            "descriptors, pooled pipes apart",
            f"{others[0]} -> {others[1]}",
            is_good=others[1] <= others[0] + DATABASE_DESCRIPTORS,
        )
        note("descriptors of pooled pipes", late["pipe"], is_good=late["pipe"] <= pipes_limit)

    def _tell_of_memory(self, began: float) -> None:
        """Compare the second quarter with the last."""
        second, last = (
            statistics.median(
                memory
                for at, memory in self._samples
                if self._secs * quarter <= at - began < self._secs * (quarter + 0.25)
            )
            for quarter in (0.25, 0.75)
        )
        limit = second * (1 + MEMORY_GROWTH) + MEMORY_SLACK_MB
        value = f"{second:.1f} -> {last:.1f} MB"
        self._report.note("memory, 2nd and last quarter", value, is_good=last <= limit)

    def _tell_of_the_last(self, faults: list[str]) -> None:
        """Report what those saw who were there when the proxy was asked to stop."""
        show(f"{self._report.engine}, drained", faults)
        drained = f"{LAST_CLIENTS - len(faults)} of {LAST_CLIENTS}"
        self._report.note("transfers drained", drained, is_good=not faults)

    def _tell_of_the_log(self) -> None:
        """Report what the proxy says about its end, and whether it had to complain before."""
        note = self._report.note
        (told,) = self._proxy.seen("draining") or [{}]
        note("draining, as it says", told.get("connections"), is_good=bool(told.get("connections")))
        (told,) = self._proxy.seen("stopped") or [{}]
        for name in ("cut", "still_active", "refused"):
            note(f"{name}, as it says", told.get(name), is_good=told.get(name) == 0)
        accepted, closed = told.get("accepted"), told.get("closed")
        note("accepted and closed", f"{accepted} {closed}", is_good=accepted == closed)
        errors = [each for each in self._proxy.events if each["level"] == "error"]
        complaints = [*errors, *self._proxy.foreign]
        show(self._report.engine, complaints)
        note("errors in its log", len(complaints), is_good=not complaints)
