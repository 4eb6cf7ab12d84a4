"""What members say to each other.

Every message but `Nack` carries records: news travels with what is sent anyway. Fields are only
ever added at the end, with a default: an older member skips them, and a newer one reads the
default. `wire/gossip` turns messages into bytes.
"""

from __future__ import annotations

import msgspec

from edgeproxy.core.cluster.swim.records import Record

Records = tuple[Record, ...]


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Asks whether a member is up.

    Attributes:
        to_id: Who is asked. Another one at the same address does not answer.
        seq: Names the probe.
        attempt: Counts the pings of a probe, so that each answer has its own round trip.
        wall_ms: The sender's clock.
        payload: What the sender shows of itself; opaque to membership.
    """

    from_id: str
    to_id: str
    seq: int
    attempt: int
    wall_ms: int
    payload: bytes = b""
    records: Records = ()


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answers a ping, also through a helper.

    Attributes:
        ping_wall_ms: The `wall_ms` of the ping.
        wall_ms: The clock of whoever was asked.
    """

    from_id: str
    seq: int
    attempt: int
    ping_wall_ms: int
    wall_ms: int
    payload: bytes = b""
    records: Records = ()


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Asks a helper to ping `target_id`, and to pass on the answer as an `Ack` of `seq`."""

    from_id: str
    target_id: str
    seq: int
    records: Records = ()


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A helper says that it had no answer either: the path to the helper works."""

    from_id: str
    seq: int


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Tells news."""

    from_id: str
    records: Records = ()


class Pull(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Asks for a page of the list of all members: those whose id comes after `after`.

    The sender's own record is in `records`: so a new member is known to whom it asks. `padding`
    makes the request as long as its answer can be, so that nobody can use it to amplify traffic.
    """

    from_id: str
    seq: int
    after: str = ""
    records: Records = ()
    padding: bytes = b""


class Page(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Answers a pull. `after` is where the next page begins, "" if this is the last one."""

    from_id: str
    seq: int
    after: str = ""
    records: Records = ()


Message = Ping | Ack | PingRequest | Nack | Gossip | Pull | Page
