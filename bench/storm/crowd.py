"""The clients of a storm: who comes when, with which manner, and what they have seen."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter

from bench.storm.client import Client
from bench.storm.fault import PATIENCE_SECS, FaultError
from bench.storm.manner import MANNERS, Manner, long_transfer
from bench.storm.proxy import Proxy

CLIENTS_AT_ONCE = 48
LAST_CLIENTS = 24
"""Who has a transfer open when the proxy is asked to stop."""


class Crowd:
    """Clients that visit the proxy again and again until `over` is set.

    Attributes:
        inside: How many are connected, or about to be.
        visits: How many visits have ended, by the name of their manner.
        faults: What was wrong with any of them.
        cut: How many were reset before they had heard of a backend, by address. Whoever the
            proxy turns away hears an ordinary end, so that these were cut by a backend, or
            wrongly.
        heard_bytes: How much has come back and been compared.
    """

    def __init__(self, proxy: Proxy, seed: int, over: asyncio.Event) -> None:
        self.inside = 0
        self.visits: Counter[str] = Counter()
        self.faults: list[str] = []
        self.cut: Counter[str] = Counter()
        self.heard_bytes = 0
        self._proxy = proxy
        self._seed = seed
        self._over = over
        self._may_connect = asyncio.Event()

    def let_in(self) -> None:
        """Let clients connect; when the storm is over, let them go home."""
        self._may_connect.set()

    def keep_out(self) -> None:
        """Let nobody connect any more; who is inside goes on."""
        self._may_connect.clear()

    async def come(self) -> None:
        """Visit, whenever it is allowed, until the storm is over."""
        await asyncio.gather(*(self._come_again(number) for number in range(CLIENTS_AT_ONCE)))

    async def come_last(self) -> None:
        """Visit once, all at the same time and for some seconds."""
        dice = random.Random(self._seed)
        await asyncio.gather(
            *(self._visit(long_transfer, random.Random(dice.random())) for _ in range(LAST_CLIENTS))
        )

    async def _come_again(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        while True:
            await self._may_connect.wait()
            if self._over.is_set():
                return
            (manner,) = dice.choices([*MANNERS], [*MANNERS.values()])
            await self._visit(manner, random.Random(dice.random()))

    async def _visit(self, manner: Manner, dice: random.Random) -> None:
        name = manner.__name__
        source = f"127.70.{dice.randrange(4)}.{dice.randrange(1, 50)}"
        tcp = socket.socket()
        client = Client(tcp, dice)
        self.inside += 1
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                tcp.setblocking(False)
                tcp.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(tcp, self._proxy.address)
                await manner(client)
        except* (FaultError, OSError, TimeoutError) as group:
            for error in group.exceptions:
                if isinstance(error, ConnectionResetError) and not client.is_greeted:
                    self.cut[source] += 1
                else:
                    self.faults.append(f"{name}: {error!r}")
        finally:
            tcp.close()
            self.inside -= 1
            self.visits[name] += 1
            self.heard_bytes += client.heard
