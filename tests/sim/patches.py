"""Puts the simulated machine in place of the real one, in the modules of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from edgeproxy.cluster.builtin import engine, gossip, members
from edgeproxy.core.cluster import messages, own_copy
from edgeproxy.core.cluster.own_copy import OwnCopy
from edgeproxy.core.cluster.rows import BACKENDS, ROUTES, TABLES, Table
from tests.sim.loop import Asyncio
from tests.sim.pop import Machines

SMALL_BYTES = 300
LATER_TABLES = {
    ROUTES: Table(("pattern",), {**TABLES[ROUTES].groups, "later": ("later",)}),
    BACKENDS: TABLES[BACKENDS],
}
"""The tables of a later release."""


class _NoGossip:
    """Stands in for `Gossip` where all POPs know each other."""

    def __init__(self, *_: object) -> None: ...

    async def run(self) -> None: ...


@contextmanager
def simulated(machines: Machines) -> Iterator[None]:
    """Let the engine run on simulated machines."""
    asyncio = Asyncio(lambda: machines.here.loop)
    rng = SimpleNamespace(SystemRandom=lambda: machines.here.rng)
    time = SimpleNamespace(
        monotonic=lambda: machines.scheduler.now,
        time_ns=lambda: machines.here.wall_ms * 1_000_000,
    )
    write: Callable[..., Any] = OwnCopy._write_transaction

    def recorded(copy: OwnCopy, *args: Any) -> object:
        push = write(copy, *args)
        machines.here.fuse.written.append(push)
        return push

    replaced: list[tuple[object, str, object]] = [
        (engine, "asyncio", asyncio),
        (engine, "random", rng),
        (engine, "time", time),
        (engine, "os", SimpleNamespace(urandom=lambda n: machines.here.rng.randbytes(n))),
        (engine, "opened", lambda _: machines.here.disk),
        (engine, "UdpSocket", lambda address: machines.here.new_udp(address)),
        (engine, "Transport", lambda _, *calls: machines.here.new_transport(*calls)),
        (gossip, "asyncio", asyncio),
        (gossip, "time", time),
        (members, "random", rng),
        (members, "time", time),
        (OwnCopy, "_write_transaction", recorded),
    ]
    if not machines.mix.gossips:
        replaced.append((engine, "Gossip", _NoGossip))
    if machines.mix.small_parts:
        replaced += [(messages, "CHUNK_BYTES", SMALL_BYTES), (own_copy, "CHUNK_BYTES", SMALL_BYTES)]
    with ExitStack() as stack:
        for target, name, value in replaced:
            stack.enter_context(patch.object(target, name, value))
        yield
