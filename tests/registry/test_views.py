"""Leases and readiness as the registry shows them."""

from __future__ import annotations

from edgeproxy.core.backends.leases import Leases
from edgeproxy.registry.views import Lease, Readiness, lease_of, readiness_of


def test_a_backend_without_a_lease_shows_none() -> None:
    assert lease_of(Leases(60.0), "a", 5.0) is None


def test_a_lease_shows_its_age_and_its_end() -> None:
    leases = Leases(60.0)
    leases.register("a", 100.0)
    assert lease_of(leases, "a", 100.0) == Lease(0.0, 60.0, 60.0)
    assert lease_of(leases, "a", 112.3456) == Lease(12.346, 47.654, 60.0)


def test_a_lease_that_is_overdue_ends_in_no_time() -> None:
    leases = Leases(60.0)
    leases.register("a", 100.0)
    assert lease_of(leases, "a", 170.0) == Lease(70.0, 0.0, 60.0)


def test_a_proxy_that_stops_is_not_ready() -> None:
    assert readiness_of([], 0.0, stopping=True) == Readiness(False, "the proxy is draining")


def test_a_proxy_without_backends_is_not_ready() -> None:
    assert readiness_of([], 0.0, stopping=False) == Readiness(False, "no backend is eligible")
