"""The socket of membership, on loopback."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeproxy.cluster.builtin.udp_socket import MOST_AT_ONCE, UdpSocket
from edgeproxy.core.cluster.swim.records import Address
from edgeproxy.errors import ConfigError
from edgeproxy.values import ListenAddress


def received(udp: UdpSocket, most_bytes: int = 2000) -> list[tuple[bytes, Address]]:
    assert select.select([udp], [], [], 10)[0]
    return list(udp.received(most_bytes))


@pytest.fixture
def four() -> Iterator[UdpSocket]:
    with closing(UdpSocket(ListenAddress("127.0.0.1", 0))) as udp:
        yield udp


@pytest.fixture
def both() -> Iterator[UdpSocket]:
    with closing(UdpSocket(ListenAddress("::", 0))) as udp:
        yield udp


def test_datagrams_arrive_with_the_address_to_answer(four: UdpSocket) -> None:
    with closing(UdpSocket(ListenAddress("127.0.0.1", 0))) as other:
        other.send(b"ping", four.address)
        ((datagram, source),) = received(four)
        assert (datagram, source) == (b"ping", other.address)
        four.send(b"ack", source)
        assert received(other) == [(b"ack", four.address)]


def test_a_socket_for_both_versions_shows_addresses_in_plain_form(
    four: UdpSocket, both: UdpSocket
) -> None:
    port = both.address.port
    four.send(b"over 4", Address("127.0.0.1", port))
    ((_, source),) = received(both)
    assert source == four.address
    both.send(b"back", source)
    assert received(four) == [(b"back", Address("127.0.0.1", port))]
    with closing(UdpSocket(ListenAddress("::1", 0))) as six:
        six.send(b"over 6", Address("::1", port))
        ((_, source),) = received(both)
        assert source == six.address


def test_what_cannot_be_sent_is_counted_and_nothing_more(four: UdpSocket, both: UdpSocket) -> None:
    four.send(b"x", Address("::1", 9))
    four.send(bytes(70_000), Address("127.0.0.1", 9))
    four.send(b"x", Address("255.255.255.255", 9))
    four.send(b"x", Address("127.0.0.1", 0))
    assert four.failures["EAFNOSUPPORT"] == 1
    assert four.failures["EMSGSIZE"] == 1
    assert four.failures["EACCES"] == 1
    assert sum(four.failures.values()) == 4
    both.send(b"x", Address("2001:db8::1", 9))
    assert sum(both.failures.values()) <= 1
    with closing(UdpSocket(ListenAddress("127.0.0.1", 0))) as other:
        other.send(b"goes on", four.address)
        assert received(four)[0][0] == b"goes on"


def test_a_port_where_nobody_listens_does_no_harm(four: UdpSocket) -> None:
    gone = UdpSocket(ListenAddress("127.0.0.1", 0))
    gone.close()
    for _ in range(3):
        four.send(b"x", gone.address)
    assert list(four.received(2000)) == []


def test_a_longer_datagram_is_cut_and_others_have_their_turn(four: UdpSocket) -> None:
    with closing(UdpSocket(ListenAddress("127.0.0.1", 0))) as other:
        for _ in range(MOST_AT_ONCE + 5):
            other.send(bytes(1500), four.address)
    first = received(four, 1201)
    assert len(first) == MOST_AT_ONCE
    assert {len(datagram) for datagram, _ in first} == {1201}
    assert len(received(four)) == 5


def test_an_address_in_use_is_an_error_that_says_what_to_do(four: UdpSocket) -> None:
    taken = ListenAddress("127.0.0.1", four.address.port)
    with pytest.raises(ConfigError, match=r"GOSSIP_ADDR: cannot listen on 127.*another process"):
        UdpSocket(taken)


def test_an_address_of_another_machine_is_an_error_that_says_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:4001.*its own"):
        UdpSocket(ListenAddress("192.0.2.1", 4001))
