"""What operators do during a storm, and what happens to them.

Edits by command and by SQL, signals, a database that is damaged and repaired, backends that go
away and come back. The first backend is left alone, so that somebody always serves.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections import Counter
from collections.abc import Sequence

from bench.storm import table
from bench.storm.backend import Backend
from bench.storm.proxy import Proxy
from bench.storm.report import Report, show

PAUSE_SECS = 0.3


class Trouble:
    """One deed after another until `over` is set.

    Attributes:
        deeds: How many there were, by name.
        wanted: Those that a storm is no storm without.
    """

    def __init__(
        self, proxy: Proxy, backends: Sequence[Backend], seed: int, over: asyncio.Event
    ) -> None:
        self.deeds: Counter[str] = Counter()
        self.wanted = {"damage"}
        self._proxy = proxy
        self._backends = backends
        self._seed = seed
        self._over = over

    def make_database(self) -> None:
        """Write the database that the proxy starts with, once the backends have their ports."""
        table.make(self._proxy.database, self._backends)
        self._sound = self._proxy.database.read_bytes()

    async def cause(self) -> None:
        """Do what operators do, and what happens to them, until the storm is over."""
        dice = random.Random(self._seed)
        deeds = (self._use_commands, self._use_sql, self._restore, self._hang_up)
        for turn in itertools.count():
            if self._over.is_set():
                break
            deed = dice.choice((*deeds, *deeds, self._damage, self._kill_backend))
            if turn % 8 == 7:
                deed = self._damage
            self.deeds[deed.__name__.strip("_")] += 1
            await deed(dice)
            await asyncio.sleep(PAUSE_SECS)

    def tell(self, report: Report, cut: Counter[str]) -> None:
        """Report on clients that were cut before a byte had come: nobody here does that."""
        show(f"{report.engine}, cut", list(cut))
        report.note("cut by no backend", cut.total(), is_good=not cut)

    def _touchable(self, dice: random.Random) -> Backend:
        return dice.choice(self._backends[1:])  # the first one always serves

    async def _use_commands(self, dice: random.Random) -> None:
        node = self._touchable(dice).id
        words = dice.choice(
            (
                ("disable", node),
                ("enable", node),
                ("remove", node),
                ("delete", node),
                ("weight", node, str(dice.randint(0, 5))),
                ("limits", node, "10", str(dice.randint(1, 40))),
            )
        )
        await self._proxy.command("node", *words)

    async def _use_sql(self, dice: random.Random) -> None:
        change = dice.choice(("healthy = 1 - healthy", "deleted = 1 - deleted", "weight = 3"))
        with table.transaction(self._proxy.database) as connection:
            connection.execute(
                f"UPDATE backends SET {change} WHERE id = ?", (self._touchable(dice).id,)
            )

    async def _restore(self, _dice: random.Random) -> None:
        with table.transaction(self._proxy.database) as connection:
            table.restore(connection, self._backends)

    async def _hang_up(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 5)):
            self._proxy.send(signal.SIGHUP)

    async def _damage(self, dice: random.Random) -> None:
        """Overwrite the database, or take it away; then put a sound one into its place."""
        database = self._proxy.database
        if dice.random() < 0.5:
            with database.open("r+b") as file:
                file.write(dice.randbytes(database.stat().st_size))
        else:
            database.unlink()
        self._proxy.send(signal.SIGHUP)
        await asyncio.sleep(PAUSE_SECS)
        new = database.with_suffix(".new")
        new.write_bytes(self._sound)
        new.replace(database)
        self._proxy.send(signal.SIGHUP)

    async def _kill_backend(self, dice: random.Random) -> None:
        """Refuse connections for a while."""
        backend = self._touchable(dice)
        await backend.stop()
        await asyncio.sleep(PAUSE_SECS)
        backend.start()
