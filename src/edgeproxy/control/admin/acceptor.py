"""Accepts the connections of one listening socket of the control plane, and limits them.

    allowed       who is not gets a short answer and is not read
    MAX_AT_ONCE   connections in all, and a part of them for one caller
    ceiling       numbers of descriptors from which on this socket takes none: each part of the
                  process leaves some to the next (`engine/descriptors`)

When there is no room, a newcomer waits for that of a connection that has sent no request for
`SILENCE_SECS`, or that has not read its answer for `STALL_SECS`: one of the same caller, if that
has too many. When there are no descriptors, accepting pauses. Everything that goes wrong is logged,
once a minute. For one event loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from edgeproxy.core.admission.client_key import key_of
from edgeproxy.core.geo.address import normalise
from edgeproxy.core.geo.prefix import PRIVATE_NETWORKS, Network, Prefixes
from edgeproxy.log import EventLog, Throttle

log = EventLog("page")

MAX_AT_ONCE = 64
MAX_OF_ONE = 32
MAX_WAITING = 64
MAX_DENIED = 8
"""Connections, at once, of callers that are told that they are not allowed."""
ACCEPTED_AT_ONCE = 8
SILENCE_SECS = 0.2
STALL_SECS = 1.0
LOOK_SECS = 0.1
PAUSE_SECS = 0.25
QUIET_SECS = 60.0
UNLIMITED = 1 << 30

_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class CallerConnection:
    """One connection that was let in.

    Attributes:
        key: The caller that it counts for.
        leave: Ends it.
        silent_at: Since when it has sent no request (loop time); None after that.
        stalled_at: Since when it has not read (loop time); None while it does.
    """

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.leave: Callable[[], object] = int
        self.silent_at: float | None = now
        self.stalled_at: float | None = None


class Room:
    """The connections of one listening socket. `now` is in seconds of any clock."""

    def __init__(self, most: int = MAX_AT_ONCE, most_of_one: int = MAX_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._connections: dict[CallerConnection, None] = {}  # the oldest first
        self._count_of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._connections)

    def enter(self, connection: CallerConnection, now: float) -> bool:
        """Let a connection in if there is room, or if another one can be made to leave."""
        is_crowded = self._count_of[connection.key] >= self._most_of_one
        if is_crowded or len(self._connections) >= self._most:
            others = [
                each for each in self._connections if not is_crowded or each.key == connection.key
            ]
            leaves = _first_to_leave(others, now)
            if leaves is None:
                return False
            self.end(leaves)
            leaves.leave()
        self._connections[connection] = None
        self._count_of[connection.key] += 1
        return True

    def end(self, connection: CallerConnection) -> None:
        """A connection has ended."""
        if self._connections.pop(connection, connection) is None:
            self._count_of[connection.key] -= 1
            if not self._count_of[connection.key]:
                del self._count_of[connection.key]


def _first_to_leave(connections: list[CallerConnection], now: float) -> CallerConnection | None:
    silent = min(connections, key=lambda each: _since(each.silent_at))
    if _since(silent.silent_at) <= now - SILENCE_SECS:
        return silent
    stalled = min(connections, key=lambda each: _since(each.stalled_at))
    return stalled if _since(stalled.stalled_at) <= now - STALL_SECS else None


def _since(at: float | None) -> float:
    return float("inf") if at is None else at


class CallerLimits:
    """Who may come to one listening socket, and up to which descriptor number.

    `allow` are the networks that may; empty: loopback, private and unique local addresses. A Unix
    socket is guarded by its permissions. `setting` is named to whoever is refused.
    """

    def __init__(
        self, allow: tuple[Network, ...] = (), ceiling: int = UNLIMITED, setting: str = ""
    ) -> None:
        self._allowed = Prefixes(dict.fromkeys(allow or PRIVATE_NETWORKS, True))
        self.ceiling = ceiling
        self.setting = setting

    def allows(self, caller: str) -> bool:
        """Return whether this address may come; "" is a caller at a Unix socket."""
        return not caller or bool(self._allowed.find(caller.partition("%")[0]))


class Acceptor:
    """Accepts for as long as it is open, and calls `serve` for each connection that is let in."""

    def __init__(
        self,
        listening: socket.socket,
        limits: CallerLimits,
        serve: Callable[[socket.socket, CallerConnection], asyncio.Task[None]],
        refuse: Callable[[socket.socket, str], asyncio.Task[None]],
    ) -> None:
        """`refuse` tells a caller that it is not allowed."""
        self._listening = listening
        self._limits = limits
        self._serve = serve
        self._refuse = refuse
        is_local = listening.family == socket.AF_UNIX
        self._room = Room(most_of_one=MAX_AT_ONCE if is_local else MAX_OF_ONE)
        self._waiting: list[asyncio.Task[None]] = []
        self._denied: set[asyncio.Task[None]] = set()
        self._told: dict[str, Throttle] = {}
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more, and close the listening socket."""
        if self._resuming is not None:
            self._resuming.cancel()
        for task in self._waiting:
            task.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._tell("pages_paused", reason=error.strerror)
                    self._pause()
                    return
                continue  # that one has left already
            connected.setblocking(False)
            self._receive(connected, normalise(address[0]) if isinstance(address, tuple) else "")

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._resuming = self._loop.call_later(
            PAUSE_SECS, self._loop.add_reader, self._listening, self._accept
        )

    def _receive(self, connected: socket.socket, caller: str) -> None:
        if not self._limits.allows(caller):
            self._tell("page_refused", reason="not_allowed", caller=caller)
            if len(self._denied) < MAX_DENIED:
                task = self._refuse(connected, self._limits.setting)
                self._denied.add(task)
                task.add_done_callback(self._denied.discard)
            else:
                connected.close()
            return
        if connected.fileno() >= self._limits.ceiling:
            self._tell("page_refused", reason="no_descriptors", caller=caller)
            connected.close()
            return
        connection = CallerConnection(key_of(caller) if caller else "", self._loop.time())
        if self._room.enter(connection, self._loop.time()):
            self._begin(connected, connection)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(asyncio.ensure_future(self._wait(connected, connection)))
        else:
            self._tell("page_refused", reason="full", caller=caller)
            connected.close()

    def _begin(self, connected: socket.socket, connection: CallerConnection) -> None:
        task = self._serve(connected, connection)
        connection.leave = task.cancel
        task.add_done_callback(lambda _task: self._room.end(connection))

    async def _wait(self, connected: socket.socket, connection: CallerConnection) -> None:
        """Let a connection in as soon as there is room."""
        this = asyncio.current_task()
        assert this is not None
        try:
            while self._waiting[0] is not this or not self._room.enter(
                connection, self._loop.time()
            ):
                await asyncio.sleep(LOOK_SECS)
                connection.silent_at = self._loop.time()
            self._begin(connected, connection)
        except asyncio.CancelledError:
            connected.close()
        finally:
            with suppress(ValueError):
                self._waiting.remove(this)

    def _tell(self, event: str, **fields: object) -> None:
        throttle = self._told.setdefault(f"{event} {fields['reason']}", Throttle(QUIET_SECS))
        suppressed = throttle.admit(self._loop.time())
        if suppressed is not None:
            more = {"suppressed": suppressed} if suppressed else {}
            log.warning(event, **fields, setting=self._limits.setting, **more)
