"""A UDP socket and the QUIC connections on it: those that others open, those that are opened here.

A stranger first has to send back a token, which shows that its address is its own (Retry). Only
then does it cost memory, and only if `admit` has a place. Everything else that belongs to no
connection is dropped without an answer, also an unknown version of QUIC.

Datagrams are read in batches, so that a connection acknowledges many at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet import QuicHeader, QuicPacketType, encode_quic_retry, pull_quic_header
from aioquic.quic.retry import QuicRetryTokenHandler

from edgeproxy.cluster.sessions.quic import configuration as quic_configuration
from edgeproxy.cluster.sessions.quic.link import Link

BATCH = 64
RETRIES_PER_SEC = 1000
"""A flood of first datagrams takes no more time than these, and what drops the others."""

LARGEST_DATAGRAM = 65535
SOCKET_BUFFER_BYTES = 1 << 20

logging.getLogger("quic").disabled = True  # it reports what strangers do, one line for each fault


class Endpoint:
    """One socket, which it closes.

    Args:
        udp: Bound; made non-blocking.
        answering: For connections that others open; None answers nobody.
        admit: Returns the place of a stranger at this address, None if there is none.
        on_accepted: Told of each new link and its place. It sets the `uses` of the link.
    """

    def __init__(
        self,
        udp: socket.socket,
        answering: QuicConfiguration | None,
        admit: Callable[[NetworkAddress], int | None],
        on_accepted: Callable[[Link, int], None],
    ) -> None:
        udp.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            udp.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        self._udp = udp
        self._answering = answering
        self._dialling = quic_configuration.dialling()
        self._admit = admit
        self._on_accepted = on_accepted
        self._links: dict[bytes, Link] = {}
        self._retry = QuicRetryTokenHandler()
        self._retries = (0, 0)  # in which second, and how many
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(udp, self._read)

    @property
    def address(self) -> NetworkAddress:
        """Where the socket is."""
        address: NetworkAddress = self._udp.getsockname()
        return address

    def link(self) -> Link:
        """Return a connection to another node, which `Link.dial` begins."""
        configuration, channel = quic_configuration.of_connection(self._dialling)
        return Link(QuicConnection(configuration=configuration), channel, self, set())

    def close(self) -> None:
        """Close the socket. The links are closed by who has them."""
        self._loop.remove_reader(self._udp)
        self._udp.close()

    def send(self, datagram: bytes, address: NetworkAddress) -> None:
        """Send a datagram; one that the system does not take is lost, as any can be."""
        try:
            self._udp.sendto(datagram, address)
        except OSError:
            pass

    def register(self, connection_id: bytes, link: Link) -> None:
        """Hand the link the datagrams with this id."""
        self._links[connection_id] = link

    def forget(self, connection_ids: set[bytes]) -> None:
        """Drop the datagrams with these ids."""
        for each in connection_ids:
            self._links.pop(each, None)

    def _read(self) -> None:
        touched: dict[Link, None] = {}
        for _ in range(BATCH):
            try:
                datagram, address = self._udp.recvfrom(LARGEST_DATAGRAM)
            except OSError:  # nothing more, or the fault of an earlier datagram
                break
            link = self._receiver(datagram, address)
            if link is not None:
                link.receive(datagram, address)
                touched[link] = None
        for link in touched:
            link.settle()

    def _receiver(self, datagram: bytes, address: NetworkAddress) -> Link | None:
        """Return the link that a datagram is for; None drops it."""
        try:
            header = pull_quic_header(
                Buffer(data=datagram), host_cid_length=quic_configuration.CONNECTION_ID_BYTES
            )
        except ValueError:
            return None
        link = self._links.get(header.destination_cid)
        is_first = (
            link is None
            and self._answering is not None
            and header.packet_type == QuicPacketType.INITIAL
            and header.version == quic_configuration.VERSION
            and len(datagram) >= quic_configuration.DATAGRAM_BYTES
        )
        return self._accepted(header, address) if is_first else link

    def _accepted(self, header: QuicHeader, address: NetworkAddress) -> Link | None:
        now = self._loop.time()
        if not header.token:
            self._ask_for_address(header, address, now)
            return None
        try:
            original_id = self._retry.validate_token(
                address=address, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            return None
        place = self._admit(address)
        if place is None:
            return None
        assert self._answering is not None
        configuration, channel = quic_configuration.of_connection(self._answering)
        quic = QuicConnection(
            configuration=configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=header.destination_cid,
        )
        link = Link(quic, channel, self, {header.destination_cid})
        self._on_accepted(link, place)
        return link

    def _ask_for_address(self, header: QuicHeader, address: NetworkAddress, now: float) -> None:
        second, asked = self._retries
        asked = asked + 1 if second == int(now) else 1
        self._retries = (int(now), asked)
        if asked > RETRIES_PER_SEC:
            return
        new_id = os.urandom(quic_configuration.CONNECTION_ID_BYTES)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=new_id,
            now=now,
        )
        retry = encode_quic_retry(
            version=header.version or 0,
            source_cid=new_id,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self.send(retry, address)
