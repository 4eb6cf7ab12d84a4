"""The network between hosts does what it is told to: otherwise tests over it prove nothing."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.system.namespaces import NAMESPACES
from tests.underlay import DEVICE, DEVICE_PACKETS, Link, Traffic, Underlay, need_underlay
from tests.waiting import wait_until

pytestmark = pytest.mark.system

PORT = 7
FAMILIES = (socket.AF_INET, socket.AF_INET6)
PATIENCE_SECS = 20.0
MANY_BYTES = 4_000_000
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ROOM_BYTES = 4_000_000
CUT = Link(is_cut=True)
IPV4_AND_UDP_BYTES = 28


class World:
    """An underlay, and a UDP socket on every host."""

    def __init__(self, stack: ExitStack, *names: str, seed: int = 0) -> None:
        self.underlay = stack.enter_context(Underlay(names, seed=seed))
        self.sockets = {
            (name, family): stack.enter_context(self.bound(name, family))
            for name in names
            for family in FAMILIES
        }

    def address(self, name: str, family: socket.AddressFamily = socket.AF_INET) -> tuple[str, int]:
        of = self.underlay.address if family is socket.AF_INET else self.underlay.address_6
        return (of(name), PORT)

    def bound(self, name: str, family: socket.AddressFamily) -> socket.socket:
        bound = self.underlay.hosts[name].run(lambda: socket.socket(family, socket.SOCK_DGRAM))
        bound.bind(self.address(name, family))
        bound.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
        bound.settimeout(PATIENCE_SECS)
        return bound

    def send(
        self,
        source: str,
        to: str,
        data: bytes = b"hello",
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.sockets[source, family].sendto(data, self.address(to, family))

    def receive(self, at: str, source: str, family: socket.AddressFamily = socket.AF_INET) -> bytes:
        """Return the datagram that is the next to arrive, which must come from `source`."""
        data, sender = self.sockets[at, family].recvfrom(65536)
        assert sender[:2] == self.address(source, family)
        return data

    def has_sent(self, source: str, to: str, packets: int) -> None:
        """Wait until the relay has seen so many packets."""

        def has() -> bool:
            return self.underlay.counts()[source, to].packets >= packets

        wait_until(has, f"{packets} packets from {source} to {to}")
        assert self.underlay.counts()[source, to].packets == packets

    def passes(self, source: str, to: str) -> bool:
        """Say whether a datagram arrives, as the relay tells it."""
        before = self.underlay.counts()[source, to].packets
        delivered_before = self.underlay.delivered()[source, to].packets
        self.send(source, to)
        self.has_sent(source, to, before + 1)
        passed = self.underlay.delivered()[source, to].packets > delivered_before
        if passed:
            assert self.receive(to, source) == b"hello"
        return passed

    def passing(self) -> set[str]:
        """Return the directions in which something passes."""
        return {f"{one}{other}" for one, other in self.underlay.links if self.passes(one, other)}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    need_underlay()
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_1400_bytes_pass_whole_in_both_directions(
    stack: ExitStack, family: socket.AddressFamily
) -> None:
    world = World(stack, "a", "b")
    for source, to in (("a", "b"), ("b", "a")):
        data = random.Random(source).randbytes(1400)
        world.send(source, to, data, family)
        assert world.receive(to, source, family) == data


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "link", [Link(), Link(delay_ms=5, jitter_ms=1, loss=0.01, duplicates=0.05)]
)
def test_a_stream_of_megabytes_passes_whole_in_both_directions(
    stack: ExitStack, family: socket.AddressFamily, link: Link
) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", link)
    one, other = connected(world, stack, family)
    assert exchanged(one, other) == [random.Random(name).randbytes(MANY_BYTES) for name in "ab"]
    assert world.underlay.overflowed() == 0


def connected(
    world: World, stack: ExitStack, family: socket.AddressFamily
) -> tuple[socket.socket, socket.socket]:
    """Return the ends of a TCP connection from `a` to `b`."""
    address = world.address("b", family)
    server = world.underlay.hosts["b"].run(lambda: socket.create_server(address, family=family))
    stack.enter_context(server)
    server.settimeout(PATIENCE_SECS)
    one = world.underlay.hosts["a"].run(lambda: socket.create_connection(address, PATIENCE_SECS))
    other, _ = server.accept()
    return stack.enter_context(one), stack.enter_context(other)


def exchanged(one: socket.socket, other: socket.socket) -> list[bytes]:
    """Send megabytes both ways at once; return what arrived of each."""
    got = [bytearray(), bytearray()]

    def receive(at: socket.socket, data: bytearray) -> None:
        while more := at.recv(65536):
            data += more

    def send(source: socket.socket, name: str) -> None:
        source.sendall(random.Random(name).randbytes(MANY_BYTES))
        source.shutdown(socket.SHUT_WR)

    work: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (send, (one, "a")),
        (send, (other, "b")),
        (receive, (other, got[0])),
        (receive, (one, got[1])),
    ]
    threads = [threading.Thread(target=function, args=rest) for function, rest in work]
    for end in (one, other):
        end.settimeout(60)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [bytes(data) for data in got]


def test_what_is_sent_is_counted_in_whole_packets_by_direction(stack: ExitStack) -> None:
    world = World(stack, "a", "b", "c")
    sizes = (1, 100, 1400)
    for size in sizes:
        world.send("a", "b", bytes(size))
    world.send("c", "a", bytes(10))
    world.has_sent("a", "b", 3)
    world.has_sent("c", "a", 1)

    expected = dict.fromkeys(world.underlay.links, Traffic(0, 0))
    expected["a", "b"] = Traffic(3, sum(sizes) + 3 * IPV4_AND_UDP_BYTES)
    expected["c", "a"] = Traffic(1, 10 + IPV4_AND_UDP_BYTES)
    assert world.underlay.counts() == expected
    assert world.underlay.delivered() == expected


def test_a_round_trip_takes_twice_the_delay(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(delay_ms=15))
    round_trips_secs = []
    for _ in range(9):
        started = time.monotonic()
        world.send("a", "b")
        world.send("b", "a", world.receive("b", "a"))
        world.receive("a", "b")
        round_trips_secs.append(time.monotonic() - started)
    assert min(round_trips_secs) >= 0.030


def test_a_delay_without_jitter_keeps_the_order(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(delay_ms=5))
    assert arrived(world, 100) == [*range(100)]


def test_jitter_brings_packets_out_of_order(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(jitter_ms=50))
    numbers = arrived(world, 100)
    assert numbers != [*range(100)]
    assert sorted(numbers) == [*range(100)]


def arrived(world: World, count: int) -> list[int]:
    """Send numbered datagrams from `a` to `b`; return the numbers as they arrive."""
    for number in range(count):
        world.send("a", "b", number.to_bytes(2, "big"))
    world.has_sent("a", "b", count)
    link = world.underlay.links["a", "b"]
    if link.delay_ms or link.jitter_ms:  # all are still to come
        arriving = count
    else:
        arriving = world.underlay.delivered()["a", "b"].packets
    return [int.from_bytes(world.receive("b", "a"), "big") for _ in range(arriving)]


def test_full_loss_lets_nothing_pass(stack: ExitStack) -> None:
    world = World(stack, "a", "b", "c")
    world.underlay.set("a", "b", Link(loss=1.0))
    assert world.passing() == {"ac", "ca", "bc", "cb"}


def test_the_share_of_packets_that_is_lost_is_as_set(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(loss=0.3))
    numbers = arrived(world, 200)
    assert 30 < 200 - len(numbers) < 90  # five standard deviations
    assert numbers == sorted(set(numbers))


def test_the_share_of_packets_that_arrives_twice_is_as_set(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(duplicates=0.3))
    numbers = arrived(world, 150)
    assert 30 < len(numbers) - 150 < 75
    assert set(numbers) == {*range(150)}


@pytest.mark.usefixtures("stack")
def test_the_seed_decides_what_is_lost() -> None:
    outcomes = []
    for seed in (1, 1, 2):
        with ExitStack() as own:
            world = World(own, "a", "b", seed=seed)
            world.underlay.set("a", "b", Link(loss=0.5))
            outcomes.append(arrived(world, 100))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != outcomes[2]


def test_one_direction_can_be_cut_alone(stack: ExitStack) -> None:
    world = World(stack, "a", "b")
    world.underlay.set_one_way("a", "b", CUT)
    assert world.passing() == {"ba"}


def test_a_cut_loses_what_is_under_way_and_what_is_sent_before_it_heals(
    stack: ExitStack,
) -> None:
    world = World(stack, "a", "b")
    world.underlay.set("a", "b", Link(delay_ms=100))
    world.send("a", "b", b"under way")
    world.has_sent("a", "b", 1)
    world.underlay.partition("a", "b")
    world.send("a", "b", b"against the cut")
    world.has_sent("a", "b", 2)
    world.underlay.heal()

    world.send("a", "b", b"afterwards")  # which is due last
    assert world.receive("b", "a") == b"afterwards"
    assert world.underlay.delivered()["a", "b"].packets == 1


def test_a_partition_cuts_only_what_goes_between_groups(stack: ExitStack) -> None:
    world = World(stack, "a", "b", "c", "d")
    world.underlay.partition("ab", "c")
    assert world.passing() == {"ab", "ba", "ad", "da", "bd", "db", "cd", "dc"}
    world.underlay.partition("a", "bcd")
    assert world.passing() == {"bc", "cb", "bd", "db", "cd", "dc"}
    world.underlay.heal()
    assert len(world.passing()) == 12


def test_healing_keeps_everything_but_the_cuts(stack: ExitStack) -> None:
    underlay = stack.enter_context(Underlay(["a", "b"]))
    slow = Link(delay_ms=7, loss=0.5)
    underlay.set_all(slow)
    underlay.partition("a", "b")
    assert underlay.links["a", "b"] == slow._replace(is_cut=True)
    underlay.heal()
    assert set(underlay.links.values()) == {slow}


def test_what_does_not_fit_under_way_is_lost_and_told(stack: ExitStack) -> None:
    underlay = stack.enter_context(Underlay(["a", "b"], capacity=10))
    underlay.set("a", "b", Link(delay_ms=60_000))
    send_many(underlay, 15)
    wait_until(lambda: underlay.counts()["a", "b"].packets == 15, "all are counted")
    assert underlay.overflowed() == 5


def test_what_comes_faster_than_the_relay_reads_is_lost_and_told(stack: ExitStack) -> None:
    underlay = stack.enter_context(Underlay(["a", "b"]))
    underlay.set_all(CUT)
    os.kill(underlay.relay_pid, signal.SIGSTOP)
    send_many(underlay, DEVICE_PACKETS + 1_000)
    os.kill(underlay.relay_pid, signal.SIGCONT)

    def lost() -> int:
        return DEVICE_PACKETS + 1_000 - underlay.counts()["a", "b"].packets

    wait_until(lambda: underlay.overflowed() == lost(), "every packet is accounted for")
    assert lost()


def send_many(underlay: Underlay, count: int) -> None:
    with underlay.hosts["a"].run(lambda: socket.socket(type=socket.SOCK_DGRAM)) as source:
        source.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 10 * ROOM_BYTES)
        for _ in range(count):
            source.sendto(b"hello", (underlay.address("b"), PORT))


def test_a_device_that_is_down_does_not_stop_the_others(stack: ExitStack) -> None:
    world = World(stack, "a", "b", "c")
    world.underlay.hosts["c"].ip("link", "set", DEVICE, "down")
    world.send("a", "c")
    world.has_sent("a", "c", 1)
    assert world.underlay.delivered()["a", "c"].packets == 0
    assert world.passes("a", "b")


def of(pid: int) -> list[str]:
    """Return the namespaces that a process has made and not taken away."""
    return [path.name for path in NAMESPACES.glob(f"edgeproxy-*-{pid}-*")]


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.mark.usefixtures("stack")
def test_nothing_is_left_afterwards() -> None:
    with Underlay(["a", "b"]) as underlay:
        pid = underlay.relay_pid
        assert len(of(os.getpid())) == 2
    assert of(os.getpid()) == []
    assert not is_running(pid)
    assert not underlay.hosts


@pytest.mark.usefixtures("stack")
def test_nothing_is_left_where_a_host_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="netns"), Underlay(["a", "b", "c" * 300]):
        pass
    assert of(os.getpid()) == []


@pytest.mark.usefixtures("stack")
def test_nothing_is_left_where_the_relay_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AssertionError, match="the relay"), Underlay(["a", "b"]):
        pass
    assert of(os.getpid()) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("stack")
def test_a_relay_that_dies_is_told_when_it_is_asked_and_at_the_end() -> None:
    def kill_and_ask() -> None:
        os.kill(underlay.relay_pid, signal.SIGKILL)
        with pytest.raises(AssertionError, match="the relay does not answer"):
            underlay.counts()

    underlay = Underlay(["a", "b"])
    with pytest.raises(AssertionError, match="the relay has failed"), underlay:
        kill_and_ask()
    assert of(os.getpid()) == []


@pytest.mark.usefixtures("stack")
def test_the_relay_ends_with_a_parent_that_is_killed_and_the_next_test_clears_the_rest() -> None:
    code = (
        "from tests.underlay import Underlay\n"
        "with Underlay(['sa-1', 'us-1']) as underlay:\n"
        "    print(underlay.relay_pid, flush=True)\n"
        "    input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        relay_pid = int(parent.stdout.readline())
        assert len(of(parent.pid)) == 2
        parent.kill()
    wait_until(lambda: not is_running(relay_pid), "the end of the relay")
    need_underlay()
    assert of(parent.pid) == []
