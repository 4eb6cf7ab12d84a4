"""Failed backends are passed over for a while, longer each time, and tried one at a time."""

from __future__ import annotations

from edgeproxy.core.backends.ejection import Ejection, EjectionSettings
from edgeproxy.core.backends.live_state import LiveState


def passed_over_secs(failures: int, settings: EjectionSettings) -> float:
    """Return how long a backend is passed over after so many failures at once."""
    ejection, live = Ejection(settings), LiveState("a")
    for _ in range(failures):
        ejection.failed(live, now=1000.0)
    return live.passed_over_until - 1000.0


def test_the_time_doubles_up_to_a_limit() -> None:
    settings = EjectionSettings(first_secs=5, longest_secs=60)
    assert [passed_over_secs(n, settings) for n in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def test_many_failures_do_not_overflow() -> None:
    assert passed_over_secs(5000, EjectionSettings()) == 60


def test_zero_passes_nobody_over() -> None:
    assert passed_over_secs(3, EjectionSettings(first_secs=0)) == 0


def test_success_forgets_the_failures() -> None:
    ejection, live = Ejection(EjectionSettings()), LiveState("a")
    ejection.failed(live, now=0.0)
    assert ejection.answered(live)
    assert (live.failures, live.passed_over_until) == (0, 0.0)
    assert not ejection.answered(live)


def test_while_one_client_tries_it_others_pass_it_over() -> None:
    ejection, live = Ejection(EjectionSettings(first_secs=5)), LiveState("a")
    ejection.failed(live, now=0.0)
    ejection.trying(live, 3.0, now=6.0)
    assert live.passed_over_until == 9.0


def test_trying_never_shortens_the_time() -> None:
    ejection, live = Ejection(EjectionSettings(first_secs=50)), LiveState("a")
    ejection.failed(live, now=0.0)
    ejection.trying(live, 3.0, now=1.0)
    assert live.passed_over_until == 50.0
