"""Every change of a backend's state has its line."""

from __future__ import annotations

from edgeproxy.control.observe.backend_events import circuit_changed, drain_changed
from edgeproxy.core.backends.live_state import Circuit, LiveState
from tests.events import events_of


def test_a_drain_says_who_and_how_many_connections_are_left() -> None:
    live = LiveState("sa-1")
    live.active = 3
    with events_of("app") as told:
        live.draining = True
        drain_changed(live)
        live.draining = False
        drain_changed(live)
    about = {"backend": "sa-1", "connections": 3}
    assert told.all == [("info", "backend_drained", about), ("info", "backend_undrained", about)]


def test_an_open_breaker_is_a_warning() -> None:
    with events_of("app") as told:
        circuit_changed("sa-1", Circuit.OPEN)
        circuit_changed("sa-1", Circuit.CLOSED)
    assert [level for level, _, _ in told.all] == ["warning", "info"]
