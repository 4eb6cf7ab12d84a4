"""The breaker's transitions are those of its table, and nothing leaves it stuck."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.admission.ticket import Refusal, Ticket
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.breaker import Breaker, BreakerSettings, circuit_of
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.health import HealthSettings
from edgeproxy.core.backends.live_state import Circuit, LiveState
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing.choice import How, Reason

SETTINGS = BreakerSettings(enabled=True, failure_threshold=3, success_threshold=2, timeout_secs=30)
DIAL_SECS = 5.0
BACKEND = Backend("a", "app", "sa", "192.0.2.1", 80)


def admitted(pop: Admission, now: float) -> Ticket:
    """Admit a client that must be admitted."""
    ticket = pop.admit("client", "", now)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def pop_of(settings: BreakerSettings, told: list[Circuit] | None = None) -> Admission:
    """Return an admission with `BACKEND` alone, whose circuit says in `told` how it changes."""
    pop = Admission(
        AdmissionSettings(),
        AffinitySettings(ttl_secs=0),
        EjectionSettings(),
        Origin,
        breaker=settings,
        circuit_changed=lambda _id, state: told.append(state) if told is not None else None,
    )
    pop.publish([BACKEND])
    return pop


def breaker_of(
    settings: BreakerSettings = SETTINGS,
) -> tuple[Breaker, LiveState, list[tuple[str, Circuit]]]:
    told: list[tuple[str, Circuit]] = []
    return Breaker(settings, lambda who, state: told.append((who, state))), LiveState("a"), told


def opened() -> tuple[Breaker, LiveState, list[tuple[str, Circuit]]]:
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


def test_a_trial_whose_client_leaves_blocks_no_others_for_long() -> None:
    breaker, live, _ = opened()
    breaker.trying(live, DIAL_SECS, 130.0)
    assert live.passed_over_until == 135.0
    breaker.trying(live, DIAL_SECS, 136.0)
    assert live.passed_over_until == 141.0


def test_connections_that_die_at_once_open_it_though_their_dials_succeed() -> None:
    breaker, live, _ = breaker_of()
    for _ in range(3):
        breaker.answered(live)
        breaker.closed_early(live, 7.0)
    assert (live.circuit, live.passed_over_until) == (Circuit.OPEN, 37.0)


def test_what_ends_late_does_not_lengthen_an_open_one() -> None:
    breaker, live, _ = opened()
    breaker.failed(live, 120.0)
    breaker.answered(live)
    assert (live.circuit, live.passed_over_until) == (Circuit.OPEN, 130.0)


def test_without_a_breaker_a_backend_that_it_had_cut_off_is_back_at_once() -> None:
    pop = pop_of(BreakerSettings(enabled=True, failure_threshold=1))
    ticket = pop.admit("client", "", 0.0)
    assert isinstance(ticket, Ticket)
    assert isinstance(pop.failed(ticket, 0.0), Refusal)
    assert pop.admit("client", "", 1.0) == Refusal(Reason.DOWN)
    pop.change(BreakerSettings(enabled=False), HealthSettings())
    ticket = pop.admit("client", "", 1.0)
    assert isinstance(ticket, Ticket)
    assert ticket.how is How.SCORED  # not a last resort any more


def test_another_timeout_counts_from_when_it_opened() -> None:
    settings = BreakerSettings(True, failure_threshold=1, timeout_secs=60)
    pop = pop_of(settings)
    pop.failed(admitted(pop, 100.0), 100.0)
    for timeout_secs, until in ((1, 101.0), (20, 120.0), (10, 110.0)):
        pop.change(dataclasses.replace(settings, timeout_secs=timeout_secs), HealthSettings())
        assert pop.admit("client", "", until - 0.1) == Refusal(Reason.DOWN)
        assert pop.load.of("a").passed_over_until == until
    assert admitted(pop, 110.0).how is How.SCORED
    pop.change(settings, HealthSettings())
    assert pop.load.of("a").passed_over_until == 115.0  # the trial's


def test_a_corrected_address_closes_it() -> None:
    told: list[Circuit] = []
    pop = pop_of(BreakerSettings(True, failure_threshold=1, early_close_secs=1), told)
    mute = admitted(pop, 100.0)
    pop.dialed(mute, 0.0, 100.0)
    pop.failed(admitted(pop, 100.0), 100.0)
    assert pop.admit("client", "", 101.0) == Refusal(Reason.DOWN)
    pop.publish([dataclasses.replace(BACKEND, wg_ip="192.0.2.2")])
    assert admitted(pop, 101.0).how is How.SCORED
    pop.closed(mute, 101.0, 5, 0, without_answer=True)  # it was at the old address
    assert told == [Circuit.OPEN, Circuit.CLOSED]


def test_other_settings_leave_a_trial_as_it_is() -> None:
    settings = BreakerSettings(True, 1, success_threshold=1, timeout_secs=30, early_close_secs=1)
    pop = pop_of(settings)
    pop.failed(admitted(pop, 100.0), 100.0)
    pop.dialed(admitted(pop, 130.0), 0.0, 130.0)
    pop.change(dataclasses.replace(settings, trials=2), HealthSettings())
    pop.tick(131.0)
    assert pop.load.of("a").circuit is Circuit.CLOSED


class TestEarlyClose:
    """Where mute connections are failures, a dial alone closes nothing."""

    SETTINGS = BreakerSettings(True, 3, 2, timeout_secs=30, early_close_secs=1)

    def half_open(self, settings: BreakerSettings = SETTINGS) -> tuple[Admission, list[Circuit]]:
        """Return an admission whose only backend may be tried from 100.0 on."""
        told: list[Circuit] = []
        pop = pop_of(settings, told)
        for _ in range(3):
            pop.failed(admitted(pop, 70.0), 70.0)
        told.clear()
        return pop, told

    def test_a_backend_that_always_ends_mute_stays_cut_off(self) -> None:
        pop, told = self.half_open()
        for now in (100.0, 131.0, 162.0):
            ticket = admitted(pop, now)
            pop.dialed(ticket, 0.0, now)
            assert pop.admit("other", "", now + 0.3) == Refusal(Reason.DOWN)
            pop.closed(ticket, now + 0.4, 5, 0, without_answer=True)
            pop.tick(now + 2.0)
        assert told == [Circuit.HALF_OPEN, Circuit.OPEN] * 3

    def test_connections_that_brought_a_byte_close_it_when_they_end(self) -> None:
        pop, told = self.half_open()
        for now in (100.0, 100.2):
            assert Circuit.CLOSED not in told
            ticket = admitted(pop, now)
            pop.dialed(ticket, 0.0, now)
            pop.closed(ticket, now + 0.1, 5, 1)
        assert told == [Circuit.HALF_OPEN, Circuit.CLOSED]
        assert admitted(pop, 100.4).how is How.SCORED

    def test_connections_that_outlive_the_moment_close_it_while_they_last(self) -> None:
        pop, told = self.half_open()
        for now in (100.0, 101.2):
            assert Circuit.CLOSED not in told
            pop.dialed(admitted(pop, now), 0.0, now)
            pop.tick(now + 0.9)
            assert Circuit.CLOSED not in told
            pop.tick(now + 1.1)
        assert told == [Circuit.HALF_OPEN, Circuit.CLOSED]
        assert [admitted(pop, 102.3).how for _ in range(3)] == [How.SCORED] * 3

    def test_time_in_which_no_end_could_be_heard_does_not_count(self) -> None:
        pop, told = self.half_open()
        pop.dialed(admitted(pop, 100.0), 0.0, 100.0)
        pop.excuse(60.0)
        pop.tick(160.9)
        assert pop.load.of("a").successes == 0
        pop.tick(161.1)
        assert pop.load.of("a").successes == 1
        assert told == [Circuit.HALF_OPEN]

    def test_what_shows_nothing_lets_the_next_one_try(self) -> None:
        pop, told = self.half_open()
        for number in range(5):
            now = 100.0 + number / 10
            ticket = admitted(pop, now)
            pop.dialed(ticket, 0.0, now)
            pop.closed(ticket, now + 0.05)
        assert told == [Circuit.HALF_OPEN]

    def test_so_many_are_on_trial_at_a_time(self) -> None:
        pop, _ = self.half_open(dataclasses.replace(self.SETTINGS, success_threshold=9, trials=2))
        for now in (100.0, 101.5, 103.0):
            for _ in range(2):
                pop.dialed(admitted(pop, now), 0.0, now)
            assert pop.admit("other", "", now + 0.9) == Refusal(Reason.DOWN)
            pop.tick(now + 1.2)
            assert pop.load.of("a").trials == 0

    def test_a_trial_from_before_it_was_cut_off_again_does_not_count(self) -> None:
        pop, told = self.half_open(dataclasses.replace(self.SETTINGS, trials=2, timeout_secs=0.5))
        first, second = admitted(pop, 100.0), admitted(pop, 100.0)
        for ticket in (first, second):
            pop.dialed(ticket, 0.0, 100.0)
        pop.closed(second, 100.1, 5, 0, without_answer=True)
        pop.dialed(admitted(pop, 100.7), 0.0, 100.7)
        pop.tick(101.2)
        pop.closed(first, 101.2, 5, 5)
        assert pop.load.of("a").successes == 0
        pop.tick(102.0)
        assert pop.load.of("a").successes == 1
        assert told == [Circuit.HALF_OPEN, Circuit.OPEN, Circuit.HALF_OPEN]


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
        self.breaker.closed_early(self.live, self.now)

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
    def only_changes_are_reported(self) -> None:
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
