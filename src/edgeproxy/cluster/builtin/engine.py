"""The built-in engine: a replica on its state file, told of by sessions, led by membership.

Membership says who is up and where; it never decides about data. Every member that is up is
connected. What the replica wants to say goes through the sessions; what does not get through is
found by the next greeting.

The replica has a thread of its own (`replica_thread`). All else here is for the event loop, but for
what the bridge uses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from edgeproxy.cluster.builtin.gossip import Gossip
from edgeproxy.cluster.builtin.members import membership_of, shown_members
from edgeproxy.cluster.builtin.replica_thread import ReplicaThread, Uses
from edgeproxy.cluster.builtin.ring import Ring
from edgeproxy.cluster.builtin.row_diff import RowDiff
from edgeproxy.cluster.builtin.sealing import Dropped
from edgeproxy.cluster.builtin.udp_socket import UdpSocket
from edgeproxy.cluster.engine import EngineError
from edgeproxy.cluster.sessions.auth import Identity
from edgeproxy.cluster.sessions.transport import Transport
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.messages import Cells, Message
from edgeproxy.core.cluster.swim.events import Event, EventKind
from edgeproxy.core.cluster.swim.records import State
from edgeproxy.core.cluster.swim.tuning import Tuning
from edgeproxy.errors import WireError
from edgeproxy.log import EventLog
from edgeproxy.wire.replication import decode, encode

log = EventLog("cluster")

MAX_WAITING = 16
"""Frames of one peer that may wait for the replica; the next ones wait at the peer."""
CATCH_UP_SECS = 0.3
"""How long a push may take before a member that shows other rows is asked what it has."""
LEAVE_SECS = 2.0
STRANGE = (Dropped.UNKNOWN_KEY, Dropped.FORGED)
MAX_SKEW_MS = 5_000
"""A clock that is further off from all others is reported."""


class BuiltinEngine:
    """The engine of one POP; see `cluster.engine.RunningEngine`."""

    def __init__(self, settings: ReplicationSettings, node_id: str, life: int, region: str) -> None:
        """Open the state. A damaged one is moved aside. Raises EdgeProxyError."""
        self._settings = settings
        self._node_id = node_id
        self._region = region
        self._life = life
        self._ring = Ring(settings)
        self._replica = ReplicaThread(settings.db_path)
        self.commit = self._replica.commit
        self.last_token = self._replica.last_token
        self.changes = self._replica.changes
        self._rng = random.SystemRandom()
        self._is_alone = not settings.bootstrap_peers
        self._was_ready = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], object] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._malformed = 0
        self._waiting: dict[str, int] = {}
        """Frames of a peer that the replica has not dealt with."""
        self._diffs: dict[int, RowDiff] = {}

    def is_ready(self) -> bool:
        """See `cluster.engine.Engine`."""
        return self._is_alone or self._replica.has_met

    # -- for the loop ----------------------------------------------------------------

    async def start(self, wake: Callable[[], object]) -> None:
        """See `cluster.engine.RunningEngine`."""
        settings = self._settings
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        identity = Identity(self._node_id, settings.cluster_name, self._ring.keys)
        self._transport = Transport(identity, self._joined, self._heard, self._left)
        self._udp = UdpSocket(settings.gossip_addr)
        transport_address = await self._transport.listen(settings.transport_addr)
        self._membership = membership_of(
            settings, self._node_id, self._life, self._region, self._udp, transport_address
        )
        self._gossip = Gossip(
            self._udp,
            self._membership,
            self._ring.keys,
            settings.cluster_name,
            settings.bootstrap_peers,
            self._member_changed,
            Tuning(period_secs=settings.gossip_interval_ms / 1000).tick_secs,
        )
        self._replica.start(Uses(self._post, self._send, self._done))
        self._membership.show(self._replica.head)
        self._tasks = [
            asyncio.ensure_future(self._gossip.run()),
            asyncio.ensure_future(self._tick()),
        ]

    async def stop(self) -> None:
        """See `cluster.engine.RunningEngine`."""
        if self._tasks:
            gossiping, ticking = self._tasks
            ticking.cancel()
            self._membership.leave()
            await asyncio.wait({gossiping}, timeout=LEAVE_SECS)
            gossiping.cancel()
            await self._transport.close()
            self._udp.close()
        self._replica.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sync_interval_ms / 1000)
            self._tick_replica(_now_ms())
            if self._ring.refresh():
                self._use_keys()

    def _tick_replica(self, now_ms: int) -> None:
        self._replica.do(lambda replica: replica.tick(now_ms, self._rng))

    # -- what the replica says -------------------------------------------------------

    def _post(self, call: Callable[..., object], *args: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *args)

    def _send(self, peer: str | None, frame: bytes) -> None:
        for each in self._transport.sessions() if peer is None else (peer,):
            self._transport.send(each, frame)

    def _done(self, has_changed: bool) -> None:
        """Let the other members know what is seen here, with every probe."""
        self._membership.show(self._replica.head)
        if has_changed or self._was_ready != self.is_ready():
            self._was_ready = self.is_ready()
            self._wake()

    # -- sessions --------------------------------------------------------------------

    def _joined(self, peer: str) -> None:
        self._replica.do(lambda replica: replica.joined(peer, _now_ms()))

    def _left(self, peer: str, _reason: str) -> None:
        self._replica.do(lambda replica: replica.left(peer))

    def _heard(self, peer: str, frame: bytes) -> None:
        try:
            message = decode(frame)
        except WireError:
            self._malformed += 1
            return
        if self._is_for_a_diff(peer, message):
            return
        self._waiting[peer] = self._waiting.get(peer, 0) + 1
        if self._waiting[peer] >= MAX_WAITING:  # it may be more: an earlier session was held
            self._transport.hold(peer, True)
        now_ms = _now_ms()  # when it came counts, however long it waits
        self._replica.do(
            lambda replica: replica.receive(peer, message, now_ms), lambda: self._dealt_with(peer)
        )

    def _dealt_with(self, peer: str) -> None:
        self._waiting[peer] -= 1
        if self._waiting[peer] == MAX_WAITING // 2:
            self._transport.hold(peer, False)
        if not self._waiting[peer]:
            del self._waiting[peer]

    def _is_for_a_diff(self, peer: str, message: Message) -> bool:
        diff = self._diffs.get(message.number) if isinstance(message, Cells) else None
        if diff is None or diff.peer != peer:
            return False
        assert isinstance(message, Cells)
        diff.take(message)
        return True

    # -- members ---------------------------------------------------------------------

    def _member_changed(self, event: Event) -> None:
        node_id, kind = event.record.node_id, event.kind
        if kind is EventKind.SHOWN:
            assert self._loop is not None
            self._loop.call_later(CATCH_UP_SECS, self._catch_up, node_id, event.payload)
            return
        if kind in (EventKind.UP, EventKind.REFUTED) and node_id != self._node_id:
            self._transport.connect(node_id, str(event.record.transport))
        elif kind is EventKind.LEFT:
            self._transport.disconnect(node_id)
        report = log.info if kind in (EventKind.UP, EventKind.LEFT) else log.warning
        report(f"member_{kind}", node=node_id, address=str(event.record.gossip))

    def _catch_up(self, node_id: str, shown: bytes) -> None:
        """Greet a member that still shows something else than is seen here."""
        member = self._membership.roster.members.get(node_id)
        if member is not None and member.payload == shown != self._replica.head:
            self._replica.do(lambda replica: replica.greet(node_id, _now_ms()))

    def _use_keys(self) -> None:
        self._gossip.use(self._ring.keys)
        self._transport.keys_changed(self._ring.keys)

    # -- operators -------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """See `cluster.engine.RunningEngine`."""
        sessions = self._transport.sessions()
        members = shown_members(self._membership, sessions, self._replica.behind(sessions))
        return {
            "members": members,
            "warnings": self._warnings(members),
            "counters": self._replica.counters() | {"malformed": self._malformed},
            "refused": dict(self._transport.refused),
            "gossip_dropped": {str(reason): n for reason, n in self._gossip.dropped.items()},
            "gossip_sent_bytes": self._gossip.sent_bytes,
            "keys": self._ring.shown(),
        }

    def _warnings(self, members: Sequence[Mapping[str, Any]]) -> list[str]:
        warnings = []
        if self._ring.is_insecure:
            warnings.append("there is no key: anybody who reaches this POP can change the table")
        if self._replica.counters()["divergences"]:
            warnings.append("tables that must be equal were not; they were compared and repaired")
        if self._replica.fault:
            warnings.append(self._replica.fault)
        strange = sum(self._gossip.dropped[reason] for reason in STRANGE)
        if strange:
            warnings.append(
                f"{strange} datagrams came from POPs of another key or cluster name: compare "
                "EDGEPROXY_REPLICATION_KEYS and _CLUSTER_NAME of all"
            )
        for peer, reason in self._gossip.bootstrap.failures.items():
            warnings.append(f"{peer} cannot be looked up: {reason}")
        offsets = [abs(each["clock_offset_ms"] or 0) for each in members]
        if members and min(offsets) > MAX_SKEW_MS:
            warnings.append(f"the clock here is {min(offsets) / 1000:.0f} s off: look at NTP")
        return warnings

    async def command(self, name: str, arguments: Mapping[str, Any]) -> object:
        """See `cluster.engine.RunningEngine`."""
        if name == "join":
            self._gossip.bootstrap.add(Peer(str(arguments["host"]), int(arguments["port"])))
            return "this POP looks there for the cluster from now on"
        if name == "leave":
            self._membership.leave()
            for peer in list(self._transport.sessions()):
                self._transport.disconnect(peer)
            return "this POP has left; it comes back when its proxy or its agent starts again"
        if name == "forget":
            return self._forget(str(arguments["node"]))
        if name == "rotate_key":
            self._ring.refresh(is_asked=True)
            self._use_keys()
            return self._ring.shown()
        if name == "diff":
            return await self._diff(str(arguments["peer"]))
        raise EngineError(f"the built-in engine has no command {name}")

    def _forget(self, node_id: str) -> str:
        member = self._membership.roster.members.get(node_id)
        if member is None:
            known = ", ".join(sorted(self._membership.roster.members)) or "none"
            raise EngineError(f"no POP {node_id} is known; known are: {known}")
        if not self._membership.forget(node_id, time.monotonic()):
            raise EngineError(f"{node_id} is not dead but {State(member.state).name.lower()}")
        self._transport.disconnect(node_id)
        return f"{node_id} is forgotten at all POPs"

    async def _diff(self, peer: str) -> list[Mapping[str, object]]:
        if peer not in self._transport.sessions():
            connected = ", ".join(sorted(self._transport.sessions())) or "none"
            raise EngineError(f"{peer} is not connected with this POP; connected are: {connected}")
        number = _now_ms() + (1 << 50)  # no pull of the replica has it
        diff = self._diffs[number] = RowDiff(peer)
        try:
            generation_id = await asyncio.to_thread(self._replica.generation_id)
            self._transport.send(peer, encode(diff.pull(number, generation_id)))
            theirs = await diff.rows()
        finally:
            del self._diffs[number]
        ours = await asyncio.to_thread(self._replica.rows)
        return [
            {"table": key.table, "id": key.id, "here": ours.get(key), "there": theirs.get(key)}
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
