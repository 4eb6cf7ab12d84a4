"""Backends that flap, while every guard is on. The first one is left alone: it always serves.

Each of the others goes down and comes back in one way after another, whatever the others do. Only
new connections fail; who has been greeted is served to the end. So the only clients that may
be cut are those that a backend has reset before it greeted them. Each of them is looked for in
the access log.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.storm import table
from bench.storm.backend import Backend
from bench.storm.fault import FaultError
from bench.storm.proxy import Proxy
from bench.storm.report import Report, show

DOWN_SECS = (0.2, 1.5)
UP_SECS = (0.1, 1.0)
SCRAPE_SECS = 1.0
ACCESS_LOG = "access.log"

GUARDS = {
    "EDGEPROXY_ALLOW": "127.0.0.0/8",
    "EDGEPROXY_DENY": "192.0.2.0/24",
    "EDGEPROXY_MAX_CONNS_PER_CLIENT": "100000",
    "EDGEPROXY_RATE_LIMIT_ENABLED": "true",
    "EDGEPROXY_RATE_LIMIT_MAX_REQUESTS": "100000",
    "EDGEPROXY_RATE_LIMIT_BURST": "100000",
    "EDGEPROXY_CIRCUIT_BREAKER_ENABLED": "true",
    "EDGEPROXY_CIRCUIT_FAILURE_THRESHOLD": "3",
    "EDGEPROXY_CIRCUIT_SUCCESS_THRESHOLD": "2",
    "EDGEPROXY_CIRCUIT_TIMEOUT_SECS": "0.3",
    "EDGEPROXY_CIRCUIT_EARLY_CLOSE_SECS": "0.5",
    "EDGEPROXY_HEALTH_CHECK_ENABLED": "true",
    "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS": "0.2",
    "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "0.5",
    "EDGEPROXY_HEALTH_HEALTHY_THRESHOLD": "2",
    "EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD": "2",
    "EDGEPROXY_HEALTH_SLOW_START_SECS": "0.5",
    "EDGEPROXY_HEALTH_PANIC": "false",
    "EDGEPROXY_METRICS_ENABLED": "true",
    "EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0",
    "EDGEPROXY_CONTROL_SOCKET": "control",
    "EDGEPROXY_ACCESS_LOG": ACCESS_LOG,
    "EDGEPROXY_CONNECT_TIMEOUT_SECS": "1",
}
"""Quick to judge, and wide enough for every client."""


class Flapping:
    """Lets backends flap until `over` is set.

    Attributes:
        deeds: How often one went down, by the way it did; and scrapes.
        wanted: Those that a storm is no storm without.
    """

    def __init__(
        self, proxy: Proxy, backends: Sequence[Backend], seed: int, over: asyncio.Event
    ) -> None:
        self.deeds: Counter[str] = Counter()
        self._proxy = proxy
        self._backends = backends
        self._seed = seed
        self._over = over
        self._ways = (self._refuse, self._drain, self._reset, self._disable, self._vanish)
        self.wanted = {way.__name__.strip("_") for way in self._ways} | {"scrape"}

    def make_database(self) -> None:
        """Write the database that the proxy starts with, once the backends have their ports."""
        table.make(self._proxy.database, self._backends)

    async def cause(self) -> None:
        """Let all but the first go down and come back until the storm is over; all are up then."""
        await asyncio.gather(
            self._scrape(),
            *(self._flap(number, each) for number, each in enumerate(self._backends) if number),
        )

    def tell(self, report: Report, cut: Counter[str]) -> None:
        """Report whether guards had to do, and on clients that were cut. The proxy has ended."""
        opened = [each for each in self._proxy.seen("circuit") if each["state"] == "open"]
        report.note("breakers opened", len(opened), is_good=bool(opened))
        down = self._proxy.seen("backend_down")
        report.note("backends down, say probes", len(down), is_good=bool(down))
        report.note("cut before a byte came", cut.total())
        unexplained = self._unexplained(cut)
        show(f"{report.engine}, cut", unexplained)
        report.note("cut by no backend", len(unexplained), is_good=not unexplained)

    def _unexplained(self, cut: Counter[str]) -> list[str]:
        """Return which clients were cut and by no reset of their backend."""
        cut_there: Counter[str] = Counter()
        resets: Counter[str] = Counter()
        with (self._proxy.folder / ACCESS_LOG).open() as lines:
            for line in map(json.loads, lines):
                if line["end"] == "backend_reset" and not line["bytes_out"]:
                    cut_there[line["client"]] += 1
                    resets[line["backend"]] += 1
        sent = Counter({each.id: each.reset_count for each in self._backends})
        return [
            *(f"{client}, {count} times too often" for client, count in (cut - cut_there).items()),
            *(f"{count} by {backend}, who did not" for backend, count in (resets - sent).items()),
        ]

    async def _flap(self, number: int, backend: Backend) -> None:
        dice = random.Random(f"{self._seed} {backend.id}")
        for turn in itertools.count(number):
            if self._over.is_set():
                break
            way = self._ways[turn % len(self._ways)]
            async with way(backend):
                await asyncio.sleep(dice.uniform(*DOWN_SECS))
            self.deeds[way.__name__.strip("_")] += 1
            await asyncio.sleep(dice.uniform(*UP_SECS))

    @asynccontextmanager
    async def _refuse(self, backend: Backend) -> AsyncIterator[None]:
        """Close the listening socket."""
        await backend.stop()
        yield
        backend.start()

    @asynccontextmanager
    async def _vanish(self, backend: Backend) -> AsyncIterator[None]:
        """Drop what would become a connection."""
        backend.vanish()
        yield
        backend.appear()

    @asynccontextmanager
    async def _reset(self, backend: Backend) -> AsyncIterator[None]:
        """Accept, and reset at once. Probes by TCP do not see that; the breaker does."""
        backend.resets = True
        yield
        backend.resets = False

    @asynccontextmanager
    async def _disable(self, backend: Backend) -> AsyncIterator[None]:
        """Have it unhealthy in the database."""
        self._set_healthy(backend, 0)
        yield
        self._set_healthy(backend, 1)

    @asynccontextmanager
    async def _drain(self, backend: Backend) -> AsyncIterator[None]:
        """Drain it over the control socket."""
        await self._ask("drain", backend)
        yield
        await self._ask("undrain", backend)

    def _set_healthy(self, backend: Backend, healthy: int) -> None:
        with table.transaction(self._proxy.database) as connection:
            connection.execute(
                "UPDATE backends SET healthy = ? WHERE id = ?", (healthy, backend.id)
            )

    async def _ask(self, command: str, backend: Backend) -> None:
        code = await self._proxy.command(command, backend.id)
        if code:
            raise FaultError(f"{command} {backend.id}: exit code {code}")

    async def _scrape(self) -> None:
        """Read the metrics, as Prometheus does."""
        while not self._over.is_set():
            if "edgeproxy_connections_total" not in await self._proxy.metrics():
                raise FaultError("no metrics")
            self.deeds["scrape"] += 1
            await asyncio.sleep(SCRAPE_SECS)
