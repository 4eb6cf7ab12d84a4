"""Runs the rounds of a bridge on a thread of its own: at once when something may have changed.

A round that fails is tried again, after a pause that grows. A fault is one line in the log when it
begins, one for each further reason, and one when it is over. Nothing ends the thread but `close`.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from edgeproxy.cluster.bridge.bridge import Bridge
from edgeproxy.cluster.engine import EngineError
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog
from edgeproxy.store.sqlite.edit_watch import EditWatch

log = EventLog("cluster")

IDLE_SECS = 1.0
"""The longest pause between two rounds: nothing is missed for longer if no event comes."""
SOON_SECS = 0.02
"""The pause before a round that goes on with what the last one could not finish."""
LONGEST_PAUSE_SECS = 2.0
FIRST_ROUND_SECS = 5.0


class BridgeWorker:
    """The thread of one bridge.

    Attributes:
        fault: Why the last round failed; "" if it did not.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._due = threading.Event()
        self._has_run = threading.Event()
        self._over = threading.Event()
        self._watch = EditWatch(bridge.path, self.wake)
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)
        self._told: set[str] = set()
        self.fault = ""

    def start(self) -> None:
        """Begin, and wait for the first round, so that it precedes what comes from elsewhere."""
        self._watch.begin()
        self._thread.start()
        self._has_run.wait(FIRST_ROUND_SECS)

    def wake(self) -> None:
        """Let a round begin soon; from any thread."""
        self._due.set()

    def close(self, timeout_secs: float = 5.0) -> None:
        """End after the round that is under way."""
        self._over.set()
        self._watch.end()
        self.wake()
        self._thread.join(timeout_secs)

    def _run(self) -> None:
        failures = 0
        pause_secs = 0.0
        while not self._over.is_set():
            if failures:
                self._over.wait(pause_secs)  # whatever happens meanwhile
            else:
                self._due.wait(pause_secs)
            self._due.clear()
            try:
                is_done = not self._over.is_set() and self._bridge.round()
            except Exception as error:  # noqa: BLE001
                failures += 1
                pause_secs = min(0.05 * 2**failures, LONGEST_PAUSE_SECS)
                self._failed(error)
            else:
                failures = 0
                pause_secs = IDLE_SECS if is_done else SOON_SECS
                self._recovered()
            self._has_run.set()
        with suppress(EdgeProxyError):
            self._bridge.close()

    def _failed(self, error: Exception) -> None:
        self.fault = reason = getattr(error, "reason", str(error))
        if reason in self._told:
            return
        self._told.add(reason)
        if isinstance(error, EdgeProxyError):
            part = "engine" if isinstance(error, EngineError) else "database"
            log.warning("replication_stalled", part=part, reason=str(error))
        else:
            log.bug("bridge_failed")

    def _recovered(self) -> None:
        self.fault = ""
        if self._told:
            self._told.clear()
            log.info("replication_resumed")
