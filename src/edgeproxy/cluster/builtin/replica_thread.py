"""Runs a replica on a thread of its own: a large table holds up neither membership nor sessions.

What the replica is told is done in order, one after the other. What it wants to say goes to the
event loop message by message, as it is sent: of a large answer, only what is compressed is ever in
memory as a whole. The bridge's thread commits and reads in between: a lock keeps the two apart.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from edgeproxy.cluster.builtin.state_file import opened
from edgeproxy.cluster.engine import Changes, EngineError, LostPositionError
from edgeproxy.core.cluster.messages import Send
from edgeproxy.core.cluster.replica import Replica
from edgeproxy.core.cluster.rows import Edit, Key, Values
from edgeproxy.errors import StateError
from edgeproxy.log import EventLog
from edgeproxy.wire.replication import encode

log = EventLog("cluster")

ORIGIN_BYTES = 16
PAGE_ROWS = 2500
"""Rows that the bridge gets at once."""
LOOK_SECS = 0.02
"""How long the loop, when it only looks, waits for what is being done."""

Decide = Callable[[Replica], Iterable[Send]]


class Uses(NamedTuple):
    """Whom the thread tells.

    Attributes:
        post: Calls a function with arguments on the event loop, soon and in order.
        send: Sends a frame to a peer, None is all of them. On the loop.
        done: Something is done, and whether rows have changed by it. On the loop.
    """

    post: Callable[..., object]
    send: Callable[[str | None, bytes], object]
    done: Callable[[bool], object]


class ReplicaThread:
    """One replica and its state.

    Attributes:
        head: The ids of all that is seen and dropped here, after what was done last.
        fault: Why the state cannot be used at the moment, "" if it can.
        has_met: Whether all that some other POP had has been known here, be it long ago.
    """

    def __init__(self, path: Path) -> None:
        """Open the state. A damaged one is moved aside. Raises EdgeProxyError."""
        self._store = opened(path)
        self._replica = Replica(self._store, lambda: os.urandom(ORIGIN_BYTES))
        self._lock = threading.Lock()
        self._due: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self._uses: Uses | None = None
        self._behind: Mapping[str, tuple[int, int] | None] = {}
        self._is_over = False
        self.has_met = self._store.facts().has_met
        self.fault = ""
        self.head = b""
        self._note()

    def start(self, uses: Uses) -> None:
        """Do what it is told from now on."""
        self._uses = uses
        self._thread.start()

    def close(self) -> None:
        """Finish what is being done, and let go of the state. What waits is pulled again later."""
        self._is_over = True
        self._due.put(None)
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._replica.stop()
            self._store.close()

    # -- for the loop ----------------------------------------------------------------

    def do(self, decide: Decide, then: Callable[[], object] | None = None) -> None:
        """Let the replica decide, say what it wants to say, and then call `then` on the loop."""
        self._due.put(lambda: self._do(decide, then))

    def counters(self) -> dict[str, int]:
        """Return what has been counted since the start."""
        return vars(self._replica.counters).copy()

    def behind(self, peers: Iterable[str]) -> Mapping[str, tuple[int, int] | None]:
        """Return how much is missing here, and at each peer; see `Replica.behind`.

        While something large is being done, that is what it was before.
        """
        if self._lock.acquire(timeout=LOOK_SECS):
            try:
                self._behind = {peer: self._replica.behind(peer) for peer in peers}
            finally:
                self._lock.release()
        return {peer: self._behind.get(peer) for peer in peers}

    def generation_id(self) -> bytes:
        """Return that of all that is dropped here. It may wait."""
        with self._lock:
            return self._replica.copy.generation_id

    def rows(self) -> Mapping[Key, Values]:
        """Return all rows. It may wait."""
        with self._lock:
            changed = self._store.changed_after(0)
            return {row.key: row.values for row in changed if row.values is not None}

    # -- for the bridge --------------------------------------------------------------

    def commit(self, edits: Sequence[Edit], token: str, after: str, at_ms: int) -> None:
        """See `cluster.engine.Engine`."""
        try:
            with self._lock:
                if self._store.facts().token != after:
                    raise EngineError("another bridge has committed edits meanwhile")
                with self._telling(wakes=False):  # the bridge asks for changes anyway
                    self._say(self._replica.write(edits, token, at_ms))
        except (StateError, ValueError) as error:
            raise EngineError(str(error)) from error

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
            page = list(islice(self._store.changed_after(position), PAGE_ROWS))
        position = page[-1].position if page else position
        rows = {row.key: row.values for row in page}
        return Changes(f"{self._store.state_id}:{position}", rows, len(page) == PAGE_ROWS)

    # -- on the thread ---------------------------------------------------------------

    def _run(self) -> None:
        while (step := self._due.get()) is not None and not self._is_over:
            step()

    def _do(self, decide: Decide, then: Callable[[], object] | None) -> None:
        try:
            with self._lock, self._telling():
                self._say(decide(self._replica))
                self._meet()
        except StateError as error:
            if str(error) != self.fault:  # it may meet every message
                self.fault = str(error)
                log.warning("replication_state_failed", reason=error)
        except Exception:  # noqa: BLE001
            log.bug("replica_failed")
        else:
            self.fault = ""
        if then is not None:
            self._post(then)

    @contextmanager
    def _telling(self, *, wakes: bool = True) -> Iterator[None]:
        """Tell afterwards what has changed, if only in a part of what was to be done."""
        before = self._store.position()
        try:
            yield
        finally:
            self._note()
            if self._uses is not None:
                self._post(self._uses.done, wakes and self._store.position() != before)

    def _note(self) -> None:
        copy = self._replica.copy
        self.head = copy.vector_id + copy.generation_id

    def _meet(self) -> None:
        """Note, also for later starts, that all that another POP had is known here."""
        if self._replica.is_level and not self.has_met:
            with self._store.transaction():
                self._store.set_facts(self._store.facts()._replace(has_met=True))
            self.has_met = True

    def _say(self, sends: Iterable[Send]) -> None:
        for peer, message in sends:
            if self._uses is not None and not self._is_over:
                self._post(self._uses.send, peer, encode(message))

    def _post(self, call: Callable[..., object], *args: object) -> None:
        assert self._uses is not None
        self._uses.post(call, *args)
