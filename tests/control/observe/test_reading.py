"""A backend's record: its totals, its JSON, and what keeps new clients away."""

from __future__ import annotations

import json

import pytest

from edgeproxy.control.observe.reading import BackendSnapshot, backend_snapshot, state_text
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveState
from edgeproxy.core.routing.ranking import Candidate


def snapshot() -> BackendSnapshot:
    """Return a backend with two dials of 10 and 30 ms, and bytes of ended and open sessions."""
    live = LiveState("sa-1")
    live.active = 1
    live.counters.answered(0.01)
    live.counters.answered(0.03)
    live.counters.bytes_in, live.counters.bytes_out = 100, 200
    candidate = Candidate(Backend("sa-1", "app", "sa", "192.0.2.1", 80), live)
    return backend_snapshot(candidate, 0.0, up=None, warm=3, carried=(5, 7))


def test_bytes_of_ended_and_open_sessions_are_added() -> None:
    backend = snapshot()
    assert (backend.all_bytes_in, backend.all_bytes_out) == (105, 207)


def test_json_has_the_public_keys_in_their_order() -> None:
    shown = json.loads(json.dumps(snapshot().as_json()))
    assert list(shown) == [
        *("id", "app", "region", "active", "soft_limit", "hard_limit", "weight", "circuit"),
        *("up", "draining", "bytes_in", "bytes_out", "warm", "connections", "errors", "rtt_secs"),
    ]
    assert (shown["connections"], shown["errors"], shown["warm"]) == (2, 0, 3)
    assert (shown["bytes_in"], shown["bytes_out"]) == (105, 207)
    assert shown["rtt_secs"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("draining", "up", "circuit", "text"),
    [
        (False, None, "closed", "ok"),
        (False, True, "closed", "ok"),
        (True, True, "closed", "draining"),
        (False, False, "closed", "down"),
        (False, None, "half_open", "circuit half_open"),
        (True, False, "open", "draining, down, circuit open"),
    ],
)
def test_the_state_names_all_that_keeps_new_clients_away(
    draining: bool, up: bool | None, circuit: str, text: str
) -> None:
    assert state_text(draining=draining, up=up, circuit=circuit) == text
