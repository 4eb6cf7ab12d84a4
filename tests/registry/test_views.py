"""Leases and readiness as the registry shows them, and the one state of a backend everywhere."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cli.running import status as status_command
from edgeproxy.cli.running import top_page
from edgeproxy.control.observe.metrics_page import Exposition
from edgeproxy.control.observe.status import Status
from edgeproxy.control.observe.status_snapshot import Surroundings
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.explanation import explain
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.destination import Own
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.health import Verdict
from edgeproxy.core.backends.leases import Leases
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.core.routing.backend_snapshot import ELIGIBLE
from edgeproxy.core.routing.eligibility import Ineligible
from edgeproxy.engine.contract import EngineSettings
from edgeproxy.engine.portable.engine import PortableEngine
from edgeproxy.gate.gate import AdmissionGate
from edgeproxy.gate.preamble import PreambleParser
from edgeproxy.registry.registry import Registry
from edgeproxy.registry.settings import RegistrySettings
from edgeproxy.registry.views import Lease, Readiness, ReadinessCheck, lease_of
from edgeproxy.store.sqlite.nodes import Nodes
from edgeproxy.store.sqlite.registrations import Registrations


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


NOT_READY = Readiness(False, "no backend is eligible")


def pop(*backends: Backend) -> Admission:
    """Return an admission with these backends in force."""
    origin = Origin("192.0.2.1", None, "sa", "none")
    admission = Admission(
        AdmissionSettings(), AffinitySettings(), EjectionSettings(), lambda _ip: origin
    )
    admission.publish(backends)
    admission.adopt()
    return admission


def test_a_proxy_that_stops_is_not_ready() -> None:
    assert ReadinessCheck(pop()).now(0.0, stopping=True) == Readiness(
        False, "the proxy is draining"
    )


def test_a_proxy_without_backends_is_not_ready() -> None:
    assert ReadinessCheck(pop()).now(0.0, stopping=False) == NOT_READY


def test_readiness_follows_a_table_whose_only_good_backend_changes() -> None:
    admission = pop(Backend("a", "app", "sa", "192.0.2.1", 80, healthy=False))
    check = ReadinessCheck(admission)
    assert check.now(0.0, stopping=False) == NOT_READY
    for good in ("b", "c"):
        admission.publish([Backend(good, "app", "sa", "192.0.2.1", 80)])
        admission.adopt()
        assert check.now(0.0, stopping=False) == Readiness(True, None)
    admission.drain("c", True)
    assert check.now(0.0, stopping=False) == NOT_READY


def passed_over(circuit: Circuit) -> Callable[[LiveState], None]:
    """Return how a backend comes to be passed over, with its circuit in this state."""

    def fail(live: LiveState) -> None:
        live.passed_over_until, live.circuit = math.inf, circuit

    return fail


STATES: dict[str, tuple[dict[str, object], Callable[[LiveState], object]]] = {
    ELIGIBLE: ({}, lambda _live: None),
    Ineligible.DELETED: ({"deleted": True}, lambda _live: None),
    Ineligible.UNHEALTHY: ({"healthy": False}, lambda _live: None),
    Ineligible.NO_WEIGHT: ({"weight": 0}, lambda _live: None),
    Ineligible.DRAINING: ({}, lambda live: setattr(live, "draining", True)),
    Ineligible.LEASE_EXPIRED: ({}, lambda live: setattr(live, "lease_expired", True)),
    Ineligible.DOWN: ({}, lambda live: setattr(live, "down", True)),
    Ineligible.FULL: ({"hard_limit": 1}, lambda _live: None),
    Ineligible.PASSED_OVER: ({}, passed_over(Circuit.CLOSED)),
    Ineligible.CIRCUIT_OPEN: ({}, passed_over(Circuit.OPEN)),
}
"""For each state of a backend with one connection: its row, and what happens to it."""


def test_the_states_are_all_there_are() -> None:
    assert set(STATES) == {ELIGIBLE, *Ineligible}


@pytest.mark.parametrize("state", STATES)
def test_every_surface_shows_the_same_state(state: str, tmp_path: Path) -> None:
    values, happens = STATES[state]
    backend = Backend("a", "app", "sa", "10.0.0.1", 80, **values)  # type: ignore[arg-type]
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    live = admission.load.of("a", backend.address)
    live.active = 1
    happens(live)
    admission.publish([backend])
    admission.adopt()
    metrics = Metrics()
    gate = AdmissionGate(admission, metrics, PreambleParser({}, admission.server_names), 1.0)
    engine = PortableEngine(EngineSettings(), gate, lambda _error: None)
    try:
        status = Status(
            "",
            "sa",
            admission,
            metrics,
            engine,
            published_at=lambda: 0.0,
            loop_lag_secs=lambda: 0.0,
            verdicts=lambda: {"a": Verdict(up=not live.down)},
            pool_waiting=dict,
            certificates=lambda: None,
            access_lines_dropped=int,
            surroundings=Surroundings,
        )

        async def follow() -> None:
            """Publish nothing else."""

        path = tmp_path / "routing.db"
        registry = Registry(
            RegistrySettings(),
            Registrations(path, 1.0),
            Nodes(path),
            admission,
            status,
            metrics,
            follow,
            lambda: (backend,),
            lambda _: None,
            lambda: False,
            Own,
        )
        with closing(registry):
            view = registry.view("a")
        (candidate,) = explain(admission, "192.0.2.1", "", time.monotonic()).candidates
        reading = status.read()
        page = b"".join(Exposition(status.read).render()).decode()
    finally:
        engine.stop()

    assert view.state == state
    assert (candidate.excluded or ELIGIBLE) == state
    shown = json.loads(b"".join(reading.as_json()))
    (told,) = shown["backends"]
    assert told["state"] == state
    assert status_command.for_people(shown).endswith(f"  {state}")
    assert top_page.page(None, shown).endswith(f"  {state}")

    assert view.circuit == told["circuit"]
    assert re.findall(r'_circuit\{.*state="(\w+)"\} 1.0', page) == [told["circuit"]]
    for name in ("up", "draining"):
        (value,) = re.findall(rf"edgeproxy_backend_{name}\{{.*\}} (\d)", page)
        assert bool(int(value)) is told[name] is getattr(view, name)
