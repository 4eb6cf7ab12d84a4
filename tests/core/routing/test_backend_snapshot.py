"""A backend's record: its state, its totals, and what is read from where."""

from __future__ import annotations

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.health import Verdict
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.routing.backend_snapshot import ELIGIBLE, backend_snapshot
from edgeproxy.core.routing.eligibility import Ineligible
from edgeproxy.core.routing.ranking import Candidate


def candidate() -> Candidate:
    """Return a backend with one open connection, and with bytes of ended sessions."""
    live = LiveState("sa-1")
    live.active = 1
    live.counters.bytes_in, live.counters.bytes_out = 100, 200
    return Candidate(Backend("sa-1", "app", "sa", "192.0.2.1", 80), live)


def test_bytes_of_ended_and_open_sessions_are_added() -> None:
    snapshot = backend_snapshot(candidate(), 0.0, carried=(5, 7))
    assert (snapshot.bytes_in, snapshot.bytes_out) == (5, 7)
    assert (snapshot.all_bytes_in, snapshot.all_bytes_out) == (105, 207)


def test_a_backend_that_takes_clients_is_eligible() -> None:
    snapshot = backend_snapshot(candidate(), 0.0, warm=3)
    assert (snapshot.state, snapshot.circuit, snapshot.draining) == (ELIGIBLE, "closed", False)
    assert (snapshot.active, snapshot.warm) == (1, 3)


@pytest.mark.parametrize(("verdict", "up"), [(None, None), (Verdict(), True)])
def test_a_backend_is_up_if_its_health_checks_say_so(
    verdict: Verdict | None, up: bool | None
) -> None:
    assert backend_snapshot(candidate(), 0.0, verdict).up is up


def test_an_open_circuit_is_half_open_when_its_time_is_over() -> None:
    tried = candidate()
    tried.live.circuit, tried.live.passed_over_until = Circuit.OPEN, 1.0
    before, after = (backend_snapshot(tried, now) for now in (0.5, 1.0))
    assert (before.state, before.circuit) == (Ineligible.CIRCUIT_OPEN, Circuit.OPEN)
    assert (after.state, after.circuit) == (ELIGIBLE, Circuit.HALF_OPEN)
