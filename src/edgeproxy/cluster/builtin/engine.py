"""The built-in engine: a replica on its state file, told of by sessions, led by membership.

Membership says who is up and where; it never decides about data. Every member that is up is
connected. What the replica wants to say goes through the sessions; what does not get through is
found by the next greeting.

The bridge's thread commits and reads, the event loop does the rest: a lock keeps them apart. Each
holds it for some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from edgeproxy.cluster.builtin.gossip import Gossip
from edgeproxy.cluster.builtin.members import membership_of, shown_members
from edgeproxy.cluster.builtin.ring import Ring
from edgeproxy.cluster.builtin.row_diff import RowDiff
from edgeproxy.cluster.builtin.sealing import Dropped
from edgeproxy.cluster.builtin.state_file import opened
from edgeproxy.cluster.builtin.udp_socket import UdpSocket
from edgeproxy.cluster.engine import Changes, EngineError, LostPositionError
from edgeproxy.cluster.sessions.auth import Identity
from edgeproxy.cluster.sessions.transport import Transport
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.messages import Cells, Message, Send
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import Edit, Key, Values
from edgeproxy.core.cluster.store import Changed
from edgeproxy.core.cluster.swim.events import Event, EventKind
from edgeproxy.core.cluster.swim.records import State
from edgeproxy.core.cluster.swim.tuning import Tuning
from edgeproxy.errors import StateError, WireError
from edgeproxy.log import EventLog
from edgeproxy.wire.replication import decode, encode

log = EventLog("cluster")

ORIGIN_BYTES = 16
PAGE_ROWS = 500
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
        self._lock = threading.Lock()
        self._store = opened(settings.db_path)
        self._replica = Replica(self._store, lambda: os.urandom(ORIGIN_BYTES))
        self._rng = random.SystemRandom()
        self._is_alone = not settings.bootstrap_peers
        self._has_met = self._store.facts().has_met
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], object] = lambda: None
        self._tasks: list[asyncio.Task[None]] = []
        self._malformed = 0
        self._fault = ""  # of the state, as told last
        self._diffs: dict[int, RowDiff] = {}

    # -- for the bridge --------------------------------------------------------------

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        """See `cluster.engine.Engine`."""
        try:
            with self._lock:
                if self._store.facts().token != after:
                    raise EngineError("another bridge has committed edits meanwhile")
                sends = self._replica.write(edits, token, at_ms)
        except (StateError, ValueError) as error:
            raise EngineError(str(error)) from error
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._say, sends)

    def last_token(self) -> str:
        """See `cluster.engine.Engine`."""
        with self._lock:
            return self._store.facts().token

    def changes(self, after: str) -> Changes:
        """See `cluster.engine.Engine`."""
        state_id, _, number = after.partition(":")
        position = int(number or 0)
        with self._lock:
            if after and (state_id != self._store.state_id or position > self._store.position()):
                raise LostPositionError("the state of the cluster is another one, or an older one")
        rows: dict[Key, Values | None] = {}
        while page := self._page_after(position):  # so that nobody waits long for the lock
            rows |= {row.key: row.values for row in page}
            position = page[-1].position
        return Changes(f"{self._store.state_id}:{position}", rows)

    def _page_after(self, position: int) -> list[Changed]:
        with self._lock:
            return list(islice(self._store.changed_after(position), PAGE_ROWS))

    def is_ready(self) -> bool:
        """See `cluster.engine.Engine`."""
        return self._is_alone or self._has_met

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
        self._show()
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
        with self._lock:
            self._replica.stop()
            self._store.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sync_interval_ms / 1000)
            self._do(lambda: self._replica.tick(_now_ms(), self._rng))
            if self._ring.refresh():
                self._use_keys()

    def _do(self, decide: Callable[[], list[Send]]) -> None:
        """Let the replica decide, and say what it wants to say."""
        try:
            with self._lock:
                before = self._store.position()
                sends = decide()
                has_changed = self._store.position() != before
        except StateError as error:
            self._failed(error)
            return
        self._fault = ""
        self._say(sends)
        if has_changed:
            self._wake()

    def _failed(self, error: StateError) -> None:
        if str(error) != self._fault:  # it may meet every message
            self._fault = str(error)
            log.warning("replication_state_failed", reason=error)

    def _say(self, sends: Sequence[Send]) -> None:
        for peer, message in sends:
            frame = encode(message)
            for each in self._transport.sessions() if peer is None else (peer,):
                self._transport.send(each, frame)
        self._show()

    def _show(self) -> None:
        """Let the other members know what is seen here, with every probe."""
        self._membership.show(self._head())

    def _head(self) -> bytes:
        """Return the ids of all that is seen and dropped here."""
        with self._lock:
            copy = self._replica.copy
            return copy.vector_id + copy.generation_id

    # -- sessions --------------------------------------------------------------------

    def _joined(self, peer: str) -> None:
        self._do(lambda: self._replica.joined(peer, _now_ms()))

    def _left(self, peer: str, _reason: str) -> None:
        with self._lock:
            self._replica.left(peer)

    def _heard(self, peer: str, frame: bytes) -> None:
        try:
            message = decode(frame)
        except WireError:
            self._malformed += 1
            return
        if not self._is_for_a_diff(peer, message):
            self._do(lambda: self._replica.receive(peer, message, _now_ms()))
        if not self._has_met and self._replica.is_level:
            self._meet()

    def _meet(self) -> None:
        """Note, also for later starts, that all that another POP had is known here."""
        try:
            with self._lock, self._store.transaction():
                self._store.set_facts(self._store.facts()._replace(has_met=True))
        except StateError as error:
            self._failed(error)
            return  # the next message tries again
        self._has_met = True
        self._wake()

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
        if member is not None and member.payload == shown != self._head():
            self._do(lambda: self._replica.greet(node_id, _now_ms()))

    def _use_keys(self) -> None:
        self._gossip.use(self._ring.keys)
        self._transport.keys_changed(self._ring.keys)

    # -- operators -------------------------------------------------------------------

    def status(self) -> Mapping[str, Any]:
        """See `cluster.engine.RunningEngine`."""
        with self._lock:
            counters = vars(self._replica.counters).copy()
            behind = {peer: self._replica.behind(peer) for peer in self._transport.sessions()}
        members = shown_members(self._membership, self._transport.sessions(), behind)
        return {
            "members": members,
            "warnings": self._warnings(members),
            "counters": counters | {"malformed": self._malformed},
            "refused": dict(self._transport.refused),
            "gossip_dropped": {str(reason): n for reason, n in self._gossip.dropped.items()},
            "gossip_sent_bytes": self._gossip.sent_bytes,
            "keys": self._ring.shown(),
        }

    def _warnings(self, members: Sequence[Mapping[str, Any]]) -> list[str]:
        warnings = []
        if self._ring.is_insecure:
            warnings.append("there is no key: anybody who reaches this POP can change the table")
        if self._replica.counters.divergences:
            warnings.append("tables that must be equal were not; they were compared and repaired")
        if self._fault:
            warnings.append(self._fault)
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
            with self._lock:
                pull = diff.pull(number, self._replica.copy.generation_id)
            self._transport.send(peer, encode(pull))
            theirs = await diff.rows()
        finally:
            del self._diffs[number]
        with self._lock:
            ours = {row.key: row.values for row in self._store.changed_after(0)}
        return [
            {"table": key.table, "id": key.id, "here": ours.get(key), "there": theirs.get(key)}
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
