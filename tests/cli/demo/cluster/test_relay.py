"""The relay carries datagrams between POPs as if each had an address of its own, or drops them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeproxy.cli.demo.cluster.relay import Relay
from edgeproxy.cli.demo.environment import LOOPBACK

NAMES = ("a", "b", "c")
HOSTS = {name: f"127.0.{number}.1" for number, name in enumerate(NAMES, 1)}


class Network:
    """Three POPs, each one socket behind a relay."""

    def __init__(self) -> None:
        self.relay = Relay()
        self.sockets: dict[str, socket.socket] = {}
        for name in NAMES:
            self.sockets[name] = bound(LOOPBACK, self.relay.open(name, HOSTS[name]))
        self.relay.start()

    def address(self, name: str) -> tuple[str, int]:
        """Return where others reach a POP."""
        return HOSTS[name], self.sockets[name].getsockname()[1]

    def send(self, source: str, target: str, datagram: bytes) -> None:
        self.sockets[source].sendto(datagram, self.address(target))

    def receive(self, name: str) -> tuple[bytes, tuple[str, int]]:
        datagram, source = self.sockets[name].recvfrom(2048)
        return datagram, source

    def close(self) -> None:
        self.relay.close()
        for each in self.sockets.values():
            each.close()


def bound(host: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(20)
    udp.bind((host, port))
    return udp


@pytest.fixture
def network() -> Iterator[Network]:
    with closing(Network()) as network:
        yield network


def test_a_datagram_comes_from_the_address_of_its_sender(network: Network) -> None:
    network.send("a", "b", b"hello")
    datagram, source = network.receive("b")
    assert (datagram, source) == (b"hello", network.address("a"))
    network.sockets["b"].sendto(b"answer", source)
    assert network.receive("a") == (b"answer", network.address("b"))


def test_a_pop_that_is_cut_off_neither_hears_nor_is_heard(network: Network) -> None:
    network.relay.cut(["a"])
    network.send("a", "b", b"lost")
    network.send("c", "b", b"kept")
    assert network.receive("b")[0] == b"kept"
    network.send("b", "a", b"lost, too")
    network.send("b", "c", b"kept, too")
    assert network.receive("c")[0] == b"kept, too"
    network.relay.cut([])
    network.send("c", "a", b"healed")
    assert network.receive("a")[0] == b"healed"
    network.send("a", "b", b"both ways")
    assert network.receive("b")[0] == b"both ways"


def test_strangers_are_not_carried(network: Network) -> None:
    with closing(bound(LOOPBACK, 0)) as stranger:
        stranger.sendto(b"strange", network.address("b"))
    with closing(bound("127.0.0.2", network.address("a")[1])) as impostor:
        impostor.sendto(b"the port of another", network.address("b"))
    network.send("a", "b", b"known")
    assert network.receive("b")[0] == b"known"


def test_a_pop_that_is_gone_does_not_stop_it(network: Network) -> None:
    port = network.address("a")[1]
    network.sockets["a"].close()
    network.sockets["b"].sendto(b"nobody listens", (HOSTS["a"], port))
    network.send("b", "c", b"go on")
    assert network.receive("c")[0] == b"go on"


def test_every_port_is_given_to_one_pop_only() -> None:
    with closing(Relay()) as relay:
        ports = [relay.open(name, HOSTS[name]) for name in NAMES * 20]
        assert len(set(ports)) == len(ports)


def test_a_port_that_is_taken_on_loopback_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([False, False, True])
    asked: list[int] = []

    def is_free(port: int) -> bool:
        asked.append(port)
        return next(free)

    monkeypatch.setattr("edgeproxy.cli.demo.cluster.relay._is_free", is_free)
    with closing(Relay()) as relay:
        assert relay.open("a", HOSTS["a"]) == asked[2]


def test_closed_it_leaves_neither_thread_nor_port() -> None:
    with closing(Network()) as network:
        addresses = [network.address(name) for name in NAMES]
    assert "relay" not in {thread.name for thread in threading.enumerate()}
    for host, port in addresses:
        bound(host, port).close()
