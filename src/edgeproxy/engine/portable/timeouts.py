"""Checks the sessions of an engine now and then: which are idle, which peers have vanished.

A session is settled when it has been quiet for a while and all sent data is acknowledged. It is
not checked again until its next byte.

The native engine does this in `native/byte_thread/loop.pyx` (`check`, `owes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from edgeproxy.engine.contract import CloseReason, EngineSettings
from edgeproxy.engine.portable.session import OPEN, Session
from edgeproxy.engine.portable.unacked import unacked_since, undelivered_bytes
from edgeproxy.engine.session_states import Side

SHORT_TICK_SECS = 0.05
"""Seconds between two checks of timers while a session dials or a client lingers."""
TICK_SECS = 1.0
CHECKS_PER_TIMEOUT = 6
"""How many times a session is checked within its idle or user timeout."""
BROKEN_GRACE_SECS = 30.0
"""How long a client may take to read what a backend sent before it reset."""


class Finish(Protocol):
    """Ends a session; with `reset`, by resetting both sides."""

    def __call__(
        self,
        session: Session,
        reason: CloseReason,
        reset: bool = False,
        ended_by: Side | None = None,
    ) -> None:
        """End it."""


class Timeouts:
    """Checks sessions. `break_off` ends one that is idle, `finish` one whose peer is gone.

    Attributes:
        pause_secs: Seconds between two checks.
    """

    def __init__(
        self,
        settings: EngineSettings,
        break_off: Callable[[Session, CloseReason], object],
        finish: Finish,
    ) -> None:
        self._idle_secs = settings.idle_timeout_secs
        self._user_secs = settings.user_timeout_secs
        self._break_off = break_off
        self._finish = finish
        timeouts = (self._idle_secs, self._user_secs)
        shortest = min((each for each in timeouts if each), default=TICK_SECS)
        self.pause_secs = min(max(shortest / CHECKS_PER_TIMEOUT, SHORT_TICK_SECS), TICK_SECS)

    def excuse(self, sessions: Iterable[Session], secs: float, now: float) -> None:
        """Leave out the seconds until `now` in which this process stood still."""
        for session in sessions:
            session.active_at = min(session.active_at + secs, now)
            if session.broken_since:
                session.broken_since += secs
            for flow in (session.upward, session.downward):
                if flow.unacked_since:
                    flow.unacked_since = now

    def sweep(self, sessions: Iterable[Session], now: float) -> None:
        """End the sessions that are idle, or whose peers have vanished."""
        for session in sessions:
            if session.state is not OPEN:
                continue
            quiet_secs = now - session.active_at
            if self._idle_secs and quiet_secs >= self._idle_secs:
                self._break_off(session, CloseReason.IDLE)
            elif session.broken_since and now - session.broken_since >= BROKEN_GRACE_SECS:
                reason = session.reset_by or CloseReason.BACKEND_RESET
                self._finish(session, reason, reset=True)
            elif self._user_secs and not session.settled and quiet_secs >= self.pause_secs:
                self._check_peers(session, now)

    def _check_peers(self, session: Session, now: float) -> None:
        session.settled = True
        for flow in (session.upward, session.downward):
            if not undelivered_bytes(flow.sink):
                flow.unacked_since = 0.0
                continue
            session.settled = False
            flow.unacked_since = since = unacked_since(flow.sink, flow.unacked_since, now)
            if since and now - since >= self._user_secs:
                self._finish(session, CloseReason.TIMED_OUT, True, session.side(flow.sink))
                return
