"""Measures the sessions between the nodes of a cluster: what they carry, and what they cost.

    ./task bench-transport
    ./task bench-transport -- --idle-secs 60

The node that is measured is this process; all of its peers are another one. Processor time and
memory are those of this process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgeproxy.cluster.sessions.auth import Identity
from edgeproxy.cluster.sessions.transport import Transport
from edgeproxy.control.awake_loop import AwakeLoop
from edgeproxy.values import ListenAddress

HANDSHAKES = 50
IDLE_SESSIONS = 9
FRAME_BYTES = 256 << 10
FRAMES = 8
ROUNDS = 5
PAUSE_SECS = 0.002
ANY_PORT = ListenAddress("127.0.0.1", 0)


class Key:
    """A key, and a ring of it alone."""

    id = b"only"

    @property
    def primary(self) -> Key:
        """The only one."""
        return self

    def __iter__(self) -> Iterator[Key]:
        yield self

    def derived(self, purpose: bytes) -> bytes:
        """Return a key for a purpose."""
        return hmac.digest(bytes(32), purpose, "sha256")


async def until(condition: Callable[[], object], pause_secs: float = PAUSE_SECS) -> None:
    """Return when `condition()` is true."""
    while not condition():
        await asyncio.sleep(pause_secs)


async def answer(nodes: int) -> None:
    """Be the peers, for ever: tell a peer when it has sent `FRAMES` frames."""
    for number in range(nodes):
        heard: list[bytes] = []

        def take(peer: str, frame: bytes, number: int = number, heard: list[bytes] = heard) -> None:
            heard.append(frame)
            if len(heard) % FRAMES == 0:
                transports[number].send(peer, b"all")
                heard.clear()

        transport = transport_of(f"peer-{number}", take)
        transports.append(transport)
        print(await transport.listen(ANY_PORT), flush=True)
    await asyncio.Event().wait()


transports: list[Transport] = []


def transport_of(name: str, on_frame: Callable[[str, bytes], object]) -> Transport:
    """Return the sessions of a node that is told nothing else."""
    me = Identity(name, "bench", Key())
    return Transport(me, lambda _peer: None, on_frame, lambda _peer, _why: None)


@asynccontextmanager
async def peers(nodes: int) -> AsyncIterator[list[str]]:
    """Yield the addresses of so many peers, which run in another process."""
    command = [sys.executable, "-m", "bench.transport", "--peers", str(nodes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield [process.stdout.readline().strip() for _ in range(nodes)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def measure_handshakes() -> None:
    """Join many peers at once, each of which is dialled once."""
    async with peers(HANDSHAKES) as addresses:
        node = transport_of("node", lambda _peer, _frame: None)
        await node.listen(ANY_PORT)
        node.introduce(addresses[0])
        await until(node.sessions)
        memory, spent = resident_bytes(), time.process_time()
        for address in addresses[1:]:
            node.introduce(address)
        await until(lambda: len(node.sessions()) == HANDSHAKES, pause_secs=1.0)
        spent = time.process_time() - spent
        memory = resident_bytes() - memory
        print(f"handshake, the end that dials: {1000 * spent / (HANDSHAKES - 1):.1f} ms of CPU")
        print(f"session: {memory / (HANDSHAKES - 1) / 1024:.0f} KiB of memory")
        await node.close()


async def measure_throughput() -> None:
    """Send 2 MiB to one peer, several times."""
    async with peers(1) as (address,):
        heard: list[bytes] = []
        node = transport_of("node", lambda _peer, frame: heard.append(frame))
        await node.listen(ANY_PORT)
        node.introduce(address)
        await until(node.sessions)
        frame = os.urandom(FRAME_BYTES)
        for _ in range(ROUNDS):
            heard.clear()
            began, spent = time.perf_counter(), time.process_time()
            for _ in range(FRAMES):
                assert node.send("peer-0", frame)
            await until(lambda: heard)
            secs, spent = time.perf_counter() - began, time.process_time() - spent
            sent = FRAMES * FRAME_BYTES
            print(
                f"{sent >> 20} MiB: {secs * 1000:.0f} ms, {8 * sent / secs / 1e6:.0f} Mbit/s, "
                f"{spent * 1000:.0f} ms of CPU at the sender"
            )
        await node.close()


async def measure_idle(secs: float) -> None:
    """Keep sessions on which nothing is said."""
    async with peers(IDLE_SESSIONS) as addresses:
        node = transport_of("node", lambda _peer, _frame: None)
        await node.listen(ANY_PORT)
        for number, address in enumerate(addresses):
            node.connect(f"peer-{number}", address)
        await until(lambda: len(node.sessions()) == IDLE_SESSIONS)
        await asyncio.sleep(1)
        spent = time.process_time()
        await asyncio.sleep(secs)
        spent = time.process_time() - spent
        assert len(node.sessions()) == IDLE_SESSIONS
        print(f"{IDLE_SESSIONS} idle sessions: {100 * spent / secs:.2f} % of a CPU")
        await node.close()


async def measure(idle_secs: float) -> None:
    """Measure everything."""
    await measure_throughput()
    await measure_handshakes()
    await measure_idle(idle_secs)


def main() -> None:
    """Measure, or be the peers of the process that does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--idle-secs", type=float, default=20.0)
    parser.add_argument("--peers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=AwakeLoop) as runner:
        runner.run(answer(arguments.peers) if arguments.peers else measure(arguments.idle_secs))


if __name__ == "__main__":
    main()
