"""Every reason why a backend takes no client, and which of them a bound client feels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.routing.eligibility import Ineligible, ineligible


def test_every_reason_has_its_text() -> None:
    backend, live = Backend("a", "m", "sa", "10.0.0.1", 80, hard_limit=2), LiveState("a")
    assert ineligible(backend, live, 0.0) is None
    live.active = 2
    assert ineligible(backend, live, 0.0) == "full"
    live.active = 0
    live.passed_over_until = 1.0
    assert ineligible(backend, live, 0.0) == "failed lately"
    live.circuit = Circuit.OPEN
    assert ineligible(backend, live, 0.0) == "circuit open"
    assert ineligible(backend, live, 1.0) is None
    live.down = True
    assert ineligible(backend, live, 0.0) == "down"
    live.lease_expired = True
    assert ineligible(backend, live, 0.0) == "lease expired"
    live.draining = True
    assert ineligible(backend, live, 0.0) == "draining"


@pytest.mark.parametrize("is_bound", [False, True])
def test_a_row_that_is_out_of_use_takes_no_client(is_bound: bool) -> None:
    for healthy, deleted, reason in ((False, False, "unhealthy"), (True, True, "deleted")):
        row = Backend("a", "m", "sa", "10.0.0.1", 80, healthy=healthy, deleted=deleted)
        assert ineligible(row, LiveState("a"), 0.0, is_bound=is_bound) == reason


def test_a_weight_of_0_does_not_matter_to_a_bound_client() -> None:
    row, live = Backend("a", "m", "sa", "10.0.0.1", 80, weight=0), LiveState("a")
    assert ineligible(row, live, 0.0) == "weight 0"
    assert ineligible(row, live, 0.0, is_bound=True) is None
    live.active = 200
    assert ineligible(row, live, 0.0, is_bound=True) == Ineligible.FULL


def test_a_hard_limit_of_0_is_no_limit() -> None:
    live = LiveState("a")
    live.active = 10_000
    assert ineligible(Backend("a", "m", "sa", "10.0.0.1", 80, hard_limit=0), live, 0.0) is None


@pytest.mark.parametrize("row", [{"healthy": False}, {"weight": 0}])
def test_a_backend_that_is_drained_says_so_whatever_its_row_says(row: dict[str, object]) -> None:
    backend = Backend("a", "app", "sa", "192.0.2.1", 80, **row)  # type: ignore[arg-type]
    live = LiveState("a")
    live.draining = True
    assert ineligible(backend, live, 0.0) == "draining"
    assert ineligible(replace(backend, deleted=True), live, 0.0) == "deleted"
