"""What is said about one member: its identity, and its state at an instance and incarnation.

A record is complete, so it means the same to whoever hears it, whatever that one knows. Records
about one member are ordered by (instance, incarnation, state): the larger one is the newer one. The
instance grows with every start of the member, the incarnation when it refutes an accusation.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import NamedTuple

import msgspec

from edgeproxy.core.cluster.swim.tuning import MAX_ID_BYTES, MAX_REGION_BYTES

UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104


class State(IntEnum):
    """The states of a member; of two at the same incarnation the larger one is believed."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Address(NamedTuple):
    """An IP address as text and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What one member says about another, or about itself.

    Attributes:
        node_id: Names the member; it keeps its id over restarts.
        instance: Which start of the member this is about.
        incarnation: How often it has refuted accusations since.
        state: A `State`. Another number is of a later version: such a record is skipped.
        region: Where it is.
        gossip: Its address for membership.
        transport: Its address for data.
        proto_min: The oldest version of the data protocol that it speaks.
        proto_max: The newest one.
        accuser: Who suspects it, or says that it is dead; "" if nobody does.
        age_secs: For how long it has been dead or has left.
    """

    node_id: str
    instance: int
    incarnation: int
    state: int
    region: str
    gossip: Address
    transport: Address
    proto_min: int = 1
    proto_max: int = 1
    accuser: str = ""
    age_secs: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        """The order of records about one member."""
        return self.instance, self.incarnation, self.state

    @property
    def life(self) -> tuple[int, int]:
        """Instance and incarnation: what a refutation has to exceed."""
        return self.instance, self.incarnation

    def as_state(self, state: State, accuser: str = "", age_secs: int = 0) -> Record:
        """Return the record of the same life in another state."""
        return msgspec.structs.replace(self, state=state, accuser=accuser, age_secs=age_secs)

    @property
    def has_addresses(self) -> bool:
        """Whether it says where the member is reached."""
        return self.gossip.host not in UNSPECIFIED and self.transport.host not in UNSPECIFIED

    def reached_at(self, source: Address) -> Record:
        """Return what a member says of itself, with where its datagrams come from.

        A member that listens on all of its addresses does not know which one others reach.
        """
        if self.has_addresses:
            return self
        gossip, transport = (
            address._replace(host=source.host) if address.host in UNSPECIFIED else address
            for address in (self.gossip, self.transport)
        )
        return msgspec.structs.replace(self, gossip=gossip, transport=transport)

    def refuting(self, incarnation: int) -> Record:
        """Return the record of this member, alive, that refutes what was said of `incarnation`."""
        return msgspec.structs.replace(
            self, incarnation=incarnation + 1, state=State.ALIVE, accuser="", age_secs=0
        )


def fits(record: Record) -> bool:
    """Whether others accept a record of this node."""
    texts = ((record.node_id, MAX_ID_BYTES), (record.region, MAX_REGION_BYTES))
    are_plain = all(
        text.isascii() and text.isprintable() and len(text) <= most for text, most in texts
    )
    are_own = is_of_one_host(record.gossip) and is_of_one_host(record.transport)
    return bool(record.node_id) and are_plain and are_own


def is_of_one_host(address: Address) -> bool:
    """Whether it is an IP address in its plain form that leads to one machine, and a port.

    A member that listens on all of its addresses says the unspecified one (`reached_at`).
    """
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return (
        not ip.is_multicast
        and str(ip) == address.host
        and "%" not in str(ip)
        and 0 < address.port < 65536
    )


def encoded_bytes(record: Record) -> int:
    """Return how many bytes of a message a record takes (MessagePack)."""
    gossip, transport = record.gossip, record.transport
    texts = (record.node_id, record.region, gossip.host, transport.host, record.accuser)
    numbers = (
        *(record.instance, record.incarnation, record.state, record.age_secs),
        *(gossip.port, transport.port, record.proto_min, record.proto_max),
    )
    return 3 + sum(map(_text_bytes, texts)) + sum(map(_number_bytes, numbers))


def next_instance(previous: int, wall_ms: int, random_bits: int) -> int:
    """Return the instance of a start: larger than the last one, and unlike that of any clone.

    It is to be on disk before the first message is sent. `random_bits` are 16 random bits: two
    copies of one disk that start in the same millisecond are told apart by them.
    """
    return max(previous + 1, (wall_ms << 16) + (random_bits & 0xFFFF))


def _text_bytes(text: str) -> int:
    return len(text) + (1 if len(text) < 32 else 2)


def _number_bytes(number: int) -> int:
    if number < 0x80:
        return 1
    return next(size + 1 for size in (1, 2, 4, 8) if number < 1 << 8 * size)
