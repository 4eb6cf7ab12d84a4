"""Puts the simulated machine in place of the real one, in the modules of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from edgeproxy.cluster.builtin import engine, gossip, members, replica_thread
from edgeproxy.cluster.builtin.replica_thread import Decide, ReplicaThread, Uses
from edgeproxy.core.cluster import messages, own_copy
from edgeproxy.core.cluster.own_copy import OwnCopy
from edgeproxy.values import ListenAddress
from tests.sim.loop import Asyncio
from tests.sim.network import Udp
from tests.sim.pop import Machines

SMALL_BYTES = 300


Place = tuple[object, str, object]
"""A module or class, a name in it, and what is there instead."""


@contextmanager
def replaced(places: Iterable[Place]) -> Iterator[None]:
    """Put other things into modules and classes for a while."""
    before: list[Place] = []
    try:
        for target, name, value in places:
            before.append((target, name, getattr(target, name)))
            setattr(target, name, value)
        yield
    finally:
        for target, name, value in reversed(before):
            setattr(target, name, value)


class _NoGossip:
    """Stands in for `Gossip` where all POPs know each other."""

    def __init__(self, *_: object) -> None: ...

    async def run(self) -> None: ...


class _SameThread(ReplicaThread):
    """Does at once what it is told. What fails there fails here."""

    def start(self, uses: Uses) -> None:
        self._uses = uses._replace(post=lambda call, *args: call(*args))

    def do(self, decide: Decide, then: Callable[[], object] | None = None) -> None:
        self._do(decide, then)


def _raise(_event: str) -> None:
    raise  # noqa: PLE0704


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

    def drawn(count: int) -> bytes:
        return machines.here.rng.randbytes(count)

    def new_udp(address: ListenAddress) -> Udp:
        return machines.here.new_udp(address)

    def recorded(copy: OwnCopy, *args: Any) -> object:
        push = write(copy, *args)
        machines.here.fuse.written.append(push)
        return push

    places: list[Place] = [
        (engine, "asyncio", asyncio),
        (engine, "random", rng),
        (engine, "time", time),
        (engine, "ReplicaThread", _SameThread),
        (replica_thread, "PAGE_ROWS", 3),
        (replica_thread, "os", SimpleNamespace(urandom=drawn)),
        (replica_thread, "opened", lambda _: machines.here.disk),
        (replica_thread, "log", SimpleNamespace(bug=_raise, warning=lambda *_, **__: None)),
        (engine, "UdpSocket", new_udp),
        (engine, "Transport", lambda _, *calls: machines.here.new_transport(*calls)),
        (gossip, "asyncio", asyncio),
        (gossip, "time", time),
        (members, "random", rng),
        (members, "time", time),
        (OwnCopy, "_write_transaction", recorded),
    ]
    if not machines.mix.gossips:
        places.append((engine, "Gossip", _NoGossip))
    if machines.mix.small_parts:
        places += [(messages, "CHUNK_BYTES", SMALL_BYTES), (own_copy, "CHUNK_BYTES", SMALL_BYTES)]
    with replaced(places):
        yield
