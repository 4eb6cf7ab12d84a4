"""Who is chosen where the probes call everybody down."""

from __future__ import annotations

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.ticket import Refusal, Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import BreakerSettings
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.choice import How, Reason


def all_down(*names: str, breaker: BreakerSettings | None = None) -> Admission:
    """Return an admission whose probes call all of these backends down."""
    pop = Admission(
        AdmissionSettings(connect_attempts=3),
        AffinitySettings(ttl_secs=0),
        EjectionSettings(),
        Origin,
        breaker=breaker,
    )
    pop.publish([Backend(name, "app", "sa", "192.0.2.1", 80, hard_limit=0) for name in names])
    for name in names:
        pop.set_health(name, up=False, now=0.0)
    return pop


def reached(pop: Admission, now: float, alive: str) -> str:
    """Let a client come and stay; return who answered it, or why it was refused."""
    answer = pop.admit("client", "", now)
    while isinstance(answer, Ticket) and answer.backend.id != alive:
        assert answer.how is How.PANIC
        answer = pop.failed(answer, now)
    if isinstance(answer, Refusal):
        return answer.reason
    pop.dialed(answer, 0.0, now)
    return answer.backend.id


def test_dead_backends_do_not_keep_clients_from_the_one_that_works() -> None:
    pop = all_down("d1", "d2", "d3", "d4", "works")
    told = [reached(pop, now=1.0, alive="works") for _ in range(40)]
    # No client is tried on more than three; the first one finds three dead ones.
    assert told[:2].count("works") >= 1
    assert told[2:] == ["works"] * 38


def test_those_that_failed_lately_are_tried_if_there_is_nobody_else() -> None:
    pop = all_down("d1", "d2")
    assert reached(pop, now=1.0, alive="") == Reason.UNREACHABLE
    assert reached(pop, now=2.0, alive="d2") == "d2"


def test_a_backend_cut_off_by_its_breaker_is_tried_when_its_time_is_up() -> None:
    settings = BreakerSettings(True, failure_threshold=1, success_threshold=1, timeout_secs=30)
    pop = all_down("a", breaker=settings)
    assert reached(pop, now=1.0, alive="") == Reason.UNREACHABLE
    assert reached(pop, now=30.9, alive="a") == Reason.DOWN
    assert reached(pop, now=31.0, alive="a") == "a"
    assert pop.load.of("a").circuit is Circuit.CLOSED
