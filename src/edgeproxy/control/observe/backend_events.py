"""Logs what changes the state of a backend, whoever asked for it: its breaker, and its drain."""

from __future__ import annotations

from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.log import EventLog

log = EventLog("app")


def circuit_changed(backend_id: str, circuit: Circuit) -> None:
    """Log the new state of a breaker."""
    tell = log.warning if circuit is Circuit.OPEN else log.info
    tell("circuit", backend=backend_id, state=circuit)


def drain_changed(live: LiveState) -> None:
    """Log that a backend is being drained, or gets clients again."""
    event = "backend_drained" if live.draining else "backend_undrained"
    log.info(event, backend=live.backend_id, connections=live.active)
