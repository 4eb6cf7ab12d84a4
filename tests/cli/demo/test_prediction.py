"""The reasons that the demo prints are those in the decision record."""

from __future__ import annotations

from collections.abc import Sequence

from edgeproxy.cli.demo.prediction import why, why_not
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.explanation import Decision, explain
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.geo.origin import Origin

SA, US = Backend("sa-1", "myapp", "sa", "127.0.0.1", 1), Backend("us-1", "myapp", "us", "::1", 2)


def decide(region: str | None, backends: Sequence[Backend], *, bound: bool = False) -> Decision:
    """Return the decision of a POP in sa for a client from `region`."""

    def locate(ip: str) -> Origin:
        return Origin(ip, None, region)

    admission = Admission(AdmissionSettings("sa"), AffinitySettings(), EjectionSettings(), locate)
    admission.publish(backends)
    if bound:
        admission.admit("127.0.0.1", "", 0.0)
    return explain(admission, "127.0.0.1", "", 0.0)


def test_a_scored_backend_is_told_by_its_tier() -> None:
    assert why(decide("us", [SA, US])) == "client region us"
    assert why(decide("ap", [SA, US])) == "none in ap: POP region sa"
    assert why(decide(None, [SA, US])) == "region unknown: POP region sa"


def test_any_other_way_of_choosing_is_named() -> None:
    assert why(decide("us", [SA, US], bound=True)) == "bound, client region us"
    assert why(decide("us", [])) == "refused: no_backend"


def test_a_backend_that_was_not_chosen_is_told_by_its_exclusion() -> None:
    sick = Backend("us-1", "myapp", "us", "::1", 2, healthy=False)
    assert why_not(decide("us", [SA, sick]), "us-1") == "us-1 unhealthy"
    assert why_not(decide("us", [SA, US], bound=True), "us-1") == "bound"
