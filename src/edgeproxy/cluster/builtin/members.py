"""Membership as this engine starts it, and the members as operators see them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from edgeproxy.cluster.builtin.udp_socket import UdpSocket
from edgeproxy.cluster.sessions.transport import SessionState
from edgeproxy.cluster.settings import ReplicationSettings
from edgeproxy.core.cluster.swim.membership import Membership
from edgeproxy.core.cluster.swim.records import Address, Record, State
from edgeproxy.core.cluster.swim.tuning import Tuning
from edgeproxy.values import ListenAddress


def membership_of(
    settings: ReplicationSettings,
    node_id: str,
    life: int,
    region: str,
    udp: UdpSocket,
    transport: ListenAddress,
) -> Membership:
    """Return the membership of a node that begins a life, with nobody else yet."""
    host = settings.advertise_addr
    me = Record(
        node_id,
        life,
        0,
        State.ALIVE,
        region,
        Address(host or udp.address.host, udp.address.port),
        Address(host or transport.host, transport.port),
    )
    tuning = Tuning(period_secs=settings.gossip_interval_ms / 1000)
    return Membership(me, tuning, random.SystemRandom(), time.monotonic())


def shown_members(
    membership: Membership,
    sessions: Mapping[str, SessionState],
    behind: Mapping[str, tuple[int, int] | None],
) -> list[dict[str, Any]]:
    """Return all other members, by name.

    `behind` says of each connected one how many transactions are missing here, and there.
    """
    now = time.monotonic()
    found = []
    for node_id, member in sorted(membership.roster.members.items()):
        session = sessions.get(node_id)
        offset_ms = member.round_trip.offset_ms()
        rtt_secs = member.round_trip.secs
        missing = behind.get(node_id)
        found.append(
            {
                "node_id": node_id,
                "state": member.state.name.lower(),
                "since_secs": round(now - member.since, 1),
                "region": member.record.region,
                "address": str(member.record.gossip),
                "transport": str(member.record.transport),
                "rtt_ms": None if rtt_secs is None else round(rtt_secs * 1000, 1),
                "clock_offset_ms": None if offset_ms is None else round(offset_ms, 1),
                "is_connected": session is not None,
                "key": None if session is None else session.key_id.hex(),
                "missing_here": None if missing is None else missing[0],
                "missing_there": None if missing is None else missing[1],
            }
        )
    return found
