"""The breaker's transitions are those of its table, and nothing leaves it stuck."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeproxy.core.admission import Admission, AdmissionSettings
from edgeproxy.core.affinity import AffinitySettings
from edgeproxy.core.breaker import Breaker, BreakerSettings, circuit_of
from edgeproxy.core.ejection import EjectionSettings
from edgeproxy.core.health import HealthSettings
from edgeproxy.core.load import Live
from edgeproxy.core.model import Backend, Circuit, Origin
from edgeproxy.core.ticket import How, Reason, Refusal, Ticket

SETTINGS = BreakerSettings(
    enabled=True, failure_threshold=3, success_threshold=2, timeout_secs=30, moment_secs=1
)
DIAL_SECS = 5.0


def breaker_of(
    settings: BreakerSettings = SETTINGS,
) -> tuple[Breaker, Live, list[tuple[str, Circuit]]]:
    told: list[tuple[str, Circuit]] = []
    return Breaker(settings, lambda who, state: told.append((who, state))), Live("a"), told


def opened() -> tuple[Breaker, Live, list[tuple[str, Circuit]]]:
    breaker, live, told = breaker_of()
    for _ in range(3):
        breaker.failed(live, 100.0)
    told.clear()
    return breaker, live, told


def test_failures_in_a_row_open_it() -> None:
    breaker, live, told = breaker_of()
    for _ in range(2):
        breaker.failed(live, 1.0)
    breaker.answered(live)
    for _ in range(2):
        breaker.failed(live, 1.0)
    assert (live.circuit, told) == (Circuit.CLOSED, [])
    breaker.failed(live, 1.0)
    assert (live.circuit, told) == (Circuit.OPEN, [("a", Circuit.OPEN)])
    assert live.passed_over_until == 31.0


def test_it_is_half_open_when_its_time_is_up() -> None:
    _, live, _ = opened()
    assert circuit_of(live, 129.9) is Circuit.OPEN
    assert circuit_of(live, 130.0) is Circuit.HALF_OPEN


def test_answers_close_it_again() -> None:
    breaker, live, told = opened()
    for _ in range(2):
        breaker.trying(live, DIAL_SECS, 130.0)
        assert live.passed_over_until == 135.0
        assert breaker.answered(live)
        assert live.passed_over_until == 0.0
    assert live.circuit is Circuit.CLOSED
    assert [state for _, state in told] == [Circuit.HALF_OPEN, Circuit.CLOSED]
    assert live.failures == 0


def test_one_failure_opens_a_half_open_one() -> None:
    breaker, live, _ = opened()
    breaker.trying(live, DIAL_SECS, 130.0)
    breaker.answered(live)
    breaker.trying(live, DIAL_SECS, 131.0)
    breaker.failed(live, 132.0)
    assert (live.circuit, live.passed_over_until) == (Circuit.OPEN, 162.0)


def test_so_many_try_a_half_open_one_at_a_time() -> None:
    breaker, live, _ = breaker_of(BreakerSettings(enabled=True, failure_threshold=1, trials=2))
    breaker.failed(live, 0.0)
    breaker.trying(live, DIAL_SECS, 40.0)
    assert live.passed_over_until <= 40.0
    breaker.trying(live, DIAL_SECS, 40.0)
    assert live.passed_over_until == 45.0
    breaker.answered(live)
    assert live.passed_over_until == 0.0


def test_a_trial_whose_client_leaves_blocks_nobody_for_long() -> None:
    breaker, live, _ = opened()
    breaker.trying(live, DIAL_SECS, 130.0)
    assert live.passed_over_until == 135.0
    breaker.trying(live, DIAL_SECS, 136.0)
    assert live.passed_over_until == 141.0


def test_connections_that_die_at_once_open_it_though_their_dials_succeed() -> None:
    breaker, live, _ = breaker_of()
    for _ in range(3):
        breaker.answered(live)
        breaker.died(live, 7.0)
    assert (live.circuit, live.passed_over_until) == (Circuit.OPEN, 37.0)


def test_what_ends_late_does_not_lengthen_an_open_one() -> None:
    breaker, live, _ = opened()
    breaker.failed(live, 120.0)
    breaker.answered(live)
    assert (live.circuit, live.passed_over_until) == (Circuit.OPEN, 130.0)


def test_without_a_breaker_whom_it_had_cut_off_is_back_at_once() -> None:
    pop = Admission(
        AdmissionSettings(),
        AffinitySettings(ttl_secs=0),
        EjectionSettings(),
        Origin,
        breaker=BreakerSettings(enabled=True, failure_threshold=1),
    )
    pop.publish([Backend("a", "app", "sa", "192.0.2.1", 80)])
    ticket = pop.admit("client", "", 0.0)
    assert isinstance(ticket, Ticket)
    assert isinstance(pop.failed(ticket, 0.0), Refusal)
    assert pop.admit("client", "", 1.0) == Refusal(Reason.DOWN)
    pop.change(BreakerSettings(enabled=False), HealthSettings())
    ticket = pop.admit("client", "", 1.0)
    assert isinstance(ticket, Ticket)
    assert ticket.how is How.SCORED  # not a last resort any more


class Machine(RuleBasedStateMachine):
    """Any order of events leaves a breaker in one of its states, and it can always close."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.live, self.told = breaker_of()
        self.now = 0.0

    @rule(secs=st.floats(0, 40))
    def wait(self, secs: float) -> None:
        self.now += secs

    @rule()
    def fail(self) -> None:
        self.breaker.failed(self.live, self.now)

    @rule()
    def die(self) -> None:
        self.breaker.died(self.live, self.now)

    @precondition(lambda self: self.live.passed_over_until <= self.now)
    @rule()
    def try_it(self) -> None:
        if self.live.failures or self.live.circuit is not Circuit.CLOSED:
            self.breaker.trying(self.live, DIAL_SECS, self.now)

    @rule()
    def answer(self) -> None:
        self.breaker.answered(self.live)

    @invariant()
    def it_is_passed_over_for_no_longer_than_its_timeout(self) -> None:
        assert self.live.passed_over_until <= self.now + SETTINGS.timeout_secs

    @invariant()
    def only_changes_are_told(self) -> None:
        states = [Circuit.CLOSED, *(state for _, state in self.told)]
        assert all(one is not other for one, other in pairwise(states))
        assert states[-1] is self.live.circuit

    def teardown(self) -> None:
        self.now = max(self.now, self.live.passed_over_until)
        for _ in range(SETTINGS.success_threshold + 1):
            self.breaker.trying(self.live, DIAL_SECS, self.now)
            self.breaker.answered(self.live)
        assert self.live.circuit is Circuit.CLOSED


TestMachine = Machine.TestCase
