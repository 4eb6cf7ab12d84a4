"""The record of a decision names every candidate and every reason."""

from __future__ import annotations

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.explanation import explain
from edgeproxy.core.admission.ticket import Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin

BR = Origin("200.160.2.3", "BR", "sa", "database", "200.160.0.0/15")


def backend(backend_id: str, region: str, **values: object) -> Backend:
    """Return a backend."""
    return Backend(backend_id, "myapp", region, "10.0.0.1", 8080, **values)  # type: ignore[arg-type]


def pop(*backends: Backend) -> Admission:
    """Return an admission whose clients are all from Brazil."""
    made = Admission(
        AdmissionSettings(region="us"), AffinitySettings(), EjectionSettings(), lambda _ip: BR
    )
    made.publish(backends)
    return made


def test_the_record_holds_the_parts_of_every_score() -> None:
    admission = pop(
        backend("far", "eu"),
        backend("near", "sa", soft_limit=50, weight=2),
        backend("pop", "us"),
        backend("sick", "sa", healthy=False),
        backend("gone", "sa", deleted=True),
        backend("weightless", "sa", weight=0),
        backend("full", "sa", hard_limit=1),
    )
    admission.load.of("near").active = 25
    admission.load.of("full").active = 1
    for name in ("near", "full"):
        admission.table.candidates.get(name)
    admission.publish([each.backend for each in admission._publication._latest.candidates.values()])
    told = explain(admission, "200.160.2.3", "", now=0.0)
    assert (told.backend, told.how) == ("near", "scored")
    assert [each.id for each in told.candidates][:3] == ["near", "pop", "far"]
    near = told.candidates[0]
    assert (near.region_score, near.load_factor, near.weight) == (0, 0.5, 2)
    assert near.score == 0.25
    scores = {each.id: each.score for each in told.candidates}
    assert (scores["pop"], scores["far"]) == (100.0, 200.0)
    assert {each.id: each.excluded for each in told.candidates if each.excluded} == {
        "sick": "unhealthy",
        "gone": "deleted",
        "weightless": "weight 0",
        "full": "full",
    }


def test_explaining_reserves_and_binds_nothing() -> None:
    admission = pop(backend("a", "sa"))
    for _ in range(3):
        explain(admission, "200.160.2.3", "", now=0.0)
    assert admission.load.active() == {}
    assert len(admission.affinity) == 0


def test_a_binding_is_told() -> None:
    admission = pop(backend("a", "sa"), backend("b", "sa"))
    ticket = admission.admit("200.160.2.3", "", 0.0)
    assert isinstance(ticket, Ticket)
    told = explain(admission, "200.160.2.3", "", now=0.0)
    assert (told.backend, told.how, told.bound_to) == (ticket.backend.id, "bound", told.backend)


def test_a_refusal_is_told_with_its_reason() -> None:
    told = explain(pop(backend("sick", "sa", healthy=False)), "200.160.2.3", "", now=0.0)
    assert (told.backend, told.how) == (None, "no_backend")
