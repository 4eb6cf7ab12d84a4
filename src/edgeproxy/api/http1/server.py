"""Accepts the connections of the API on the loop of the control plane.

It accepts a few at a time, so that the loop also does other things. Where it falls behind, or gets
no descriptor, heartbeats may wait unheard, and `MissedHeartbeats` is told.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress

from edgeproxy.api.guard import Guard
from edgeproxy.api.http1.connection import Connection
from edgeproxy.api.http1.connection_limits import ConnectionLimits, Place, Room
from edgeproxy.api.http1.unread import UnreadAnswers
from edgeproxy.core.geo.address import normalise
from edgeproxy.log import EventLog, Throttle
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats

log = EventLog("api")

AT_ONCE = 8
"""Connections accepted in one turn of the loop."""
BEHIND_SECS = 1.0
"""How long callers may wait in the queue of the system before heartbeats count as unheard."""
RETRY_SECS = 0.2
"""The pause after the system had no descriptor for a connection."""
ENDING_SECS = 1.0
CHECK_SECS = 0.02
"""Between two looks at whether answers have been read, at the end."""
QUIET_SECS = 10.0


class Server:
    """The API on one listening socket. For one event loop."""

    def __init__(
        self, guard: Guard, missed_heartbeats: MissedHeartbeats, timeout_secs: float, room: Room
    ) -> None:
        self._guard = guard
        self._missed_heartbeats = missed_heartbeats
        self._timeout_secs = timeout_secs
        self._limits = ConnectionLimits(guard.allows, missed_heartbeats, room)
        self._unread = UnreadAnswers()
        self._connections: set[Connection] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None
        self._behind_since: float | None = None
        self._throttle = Throttle(QUIET_SECS)

    async def serve(self, listening: socket.socket) -> None:
        """Serve on this listening socket; `close` closes it too."""
        listening.setblocking(False)
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening, self._accept)

    def stop_listening(self) -> None:
        """Accept no further connections; close the others after the requests under way."""
        if self._listening is not None:
            if self._retry is not None:
                self._retry.cancel()
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        for connection in list(self._connections):
            connection.shut_down()

    async def close(self) -> None:
        """Stop serving. Requests under way have ENDING_SECS to end, and answers to be read."""
        self.stop_listening()
        under_way = [each.answering for each in self._connections if each.answering is not None]
        if under_way:
            await asyncio.wait(under_way, timeout=ENDING_SECS)
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_SECS):
                while any(each.is_sending for each in self._connections):
                    await asyncio.sleep(CHECK_SECS)
        for connection in list(self._connections):
            connection.abort()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._listening is None or self._retry is not None:
                return
            try:
                connected, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                self._behind_since = None
                self._missed_heartbeats.is_behind = False
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            self._take(connected, address[0])
        now = time.monotonic()
        self._missed_heartbeats.is_behind = True
        if self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since > BEHIND_SECS:
            self._missed_heartbeats.missed_everyone()
        if self._next is None:  # or nobody would find out that nobody waits any more
            self._next = self._loop.call_soon(self._accept_more)

    def _accept_more(self) -> None:
        self._next = None
        self._accept()

    def _take(self, connected: socket.socket, host: str) -> None:
        now = time.monotonic()
        caller = normalise(host)
        place = self._limits.enter(caller, connected.fileno(), now)
        if place is None:
            connected.close()
            if self._guard.allows(caller):
                self._warn(now, "no room", self._limits.total)
            return
        connected.setblocking(False)
        task = self._loop.create_task(self._serve(connected, place))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _serve(self, connected: socket.socket, place: Place) -> None:
        connection = Connection(self._guard, place, self._unread, self._timeout_secs, self._closed)
        self._connections.add(connection)
        try:
            await self._loop.connect_accepted_socket(lambda: connection, connected)
        except OSError:  # the peer is gone already
            connected.close()
            if connection in self._connections:
                self._closed(connection)

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._limits.leave(connection.place)

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a moment: the system has no descriptor or no memory."""
        assert self._listening is not None
        self._missed_heartbeats.missed_everyone()
        self._warn(time.monotonic(), error.strerror, self._limits.total)
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(RETRY_SECS, self._go_on)

    def _go_on(self) -> None:
        self._retry = None
        if self._listening is not None:
            self._missed_heartbeats.missed_everyone()
            self._loop.add_reader(self._listening, self._accept)

    def _warn(self, now: float, reason: str | None, connections: int) -> None:
        suppressed = self._throttle.admit(now)
        if suppressed is not None:
            log.warning("api_full", reason=reason, connections=connections, suppressed=suppressed)
