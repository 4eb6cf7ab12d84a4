"""Leases end at their TTL, and not when it is this POP that hears nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.backends.leases import LEAST_QUIET, QUIET_PART, Leases

TTL = 60.0


def leases(*ids: str, now: float = 0.0) -> Leases:
    made = Leases(TTL)
    for each in ids:
        made.register(each, now)
    return made


def test_a_lease_lasts_its_ttl_from_the_last_sign_of_life() -> None:
    kept = leases("a")
    assert kept.next_at() == TTL
    assert kept.expired(59.9) == []
    assert kept.beat("a", 59.9)
    assert kept.next_at() == 59.9 + TTL
    assert kept.expired(119.8) == []
    assert kept.silence("a", 119.8) == 119.8 - 59.9
    assert kept.expired(119.9) == ["a"]
    assert not kept.beat("a", 119.9)
    assert (kept.next_at(), kept.silence("a", 120), len(kept)) == (None, None, 0)


def test_who_has_left_does_not_expire() -> None:
    kept = leases("a", "b")
    kept.forget("a")
    kept.forget("nobody")
    assert "a" not in kept
    assert kept.expired(TTL) == ["b"]


def test_only_those_that_are_known_keep_theirs() -> None:
    kept = leases("a", "b", "c")
    assert kept.keep({"b"}) == ["a", "c"]
    assert (len(kept), kept.expired(TTL)) == (1, ["b"])


def test_a_few_of_many_expire() -> None:
    kept = leases(*map(str, range(10)))
    for each in range(4, 10):
        kept.beat(str(each), 50.0)
    assert kept.expired(TTL) == ["0", "1", "2", "3"]
    assert (kept.expired_total, kept.holding) == (4, False)


def test_most_that_fall_silent_together_are_held_back() -> None:
    kept = leases(*map(str, range(10)))
    for second in range(10):  # their heartbeats are spread over a third of the TTL
        kept.beat(str(second), second * 2.0)
    for now in range(60, 600, 5):
        assert kept.expired(float(now)) == []
    assert (kept.holding, kept.held_back, len(kept)) == (True, 1, 10)


def test_it_goes_on_when_most_are_heard_and_the_others_have_one_ttl_more() -> None:
    kept = leases(*map(str, range(10)))
    assert kept.expired(100.0) == []
    for each in range(5):
        assert kept.holding
        assert kept.beat(str(each), 200.0)
        assert kept.expired(200.0) == []
    assert not kept.holding
    for each in range(5):
        kept.beat(str(each), 250.0)
    assert kept.expired(200.0 + TTL - 0.1) == []
    assert kept.expired(200.0 + TTL) == ["5", "6", "7", "8", "9"]


def test_those_that_expire_one_after_the_other_count_together() -> None:
    kept = leases(*map(str, range(9)))
    gone: list[str] = []
    for second in range(9):  # each falls silent three seconds after the one before
        for each in range(second, 9):
            kept.beat(str(each), second * 3.0)
    for now in range(60, 100):
        gone += kept.expired(float(now))
    assert len(gone) <= 4
    assert kept.holding


def test_two_backends_are_too_few_to_tell() -> None:
    assert leases("a", "b").expired(TTL) == ["a", "b"]


def test_a_time_in_which_nothing_could_be_heard_is_nobodys_silence() -> None:
    kept = leases("a", "b")
    kept.beat("b", 40.0)
    kept.excuse(100.0, 130.0)
    assert kept.expired(130.0) == []
    assert kept.silence("a", 130.0) == 30.0
    assert kept.silence("b", 130.0) == 0.0
    assert kept.expired(160.0) == ["a"]


def test_those_that_have_gone_to_another_pop_leave_and_are_not_missed() -> None:
    kept = leases(*map(str, range(10)))
    moved = {str(each) for each in range(8)}
    kept.beat("9", 50.0)
    assert kept.left(moved, TTL - 0.1) == []
    assert kept.left(moved, TTL) == sorted(moved)
    assert kept.expired(TTL, moved) == ["8"]
    assert (set(kept), kept.expired_total, kept.holding) == ({"9"}, 1, False)


def test_those_that_are_about_to_leave_hold_back_nobody() -> None:
    kept = leases("dead", *map(str, range(9)))
    for each in range(9):
        kept.beat(str(each), 5.0)
    elsewhere = {str(each) for each in range(8)}
    kept.beat("8", TTL)
    assert kept.left(elsewhere, TTL) == []
    assert kept.expired(TTL, elsewhere) == ["dead"]


def test_those_that_leave_do_so_while_others_are_held_back() -> None:
    kept = leases(*map(str, range(10)))
    assert kept.expired(TTL) == []
    assert kept.holding
    assert kept.left({"3"}, TTL) == ["3"]
    assert kept.expired(TTL) == []
    assert (kept.holding, len(kept)) == (True, 9)


def test_who_is_heard_here_counts_wherever_else_it_is_heard() -> None:
    kept = leases(*map(str, range(10)))
    both = {str(each) for each in range(7)}
    for each in both:
        kept.beat(each, TTL)
    assert kept.expired(TTL, both) == ["7", "8", "9"]


@given(st.lists(st.floats(0.0, TTL), min_size=LEAST_QUIET, max_size=30), st.floats(0, 1000))
def test_a_pop_that_is_cut_off_keeps_all(phases: list[float], later: float) -> None:
    """Whenever in a third of the TTL the last heartbeats were, before nobody was heard."""
    kept = Leases(TTL)
    for number, phase in enumerate(sorted(phases)):
        kept.register(str(number), phase * (1 - QUIET_PART) * 0.999)
    first = kept.next_at()
    assert first is not None
    assert kept.expired(first) == []
    assert kept.expired(first + later) == []
    assert kept.holding


class Backends(RuleBasedStateMachine):
    """Random backends; nobody who was heard within the TTL ever loses a lease."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.kept = Leases(TTL)
        self.heard: dict[str, float] = {}

    @rule(each=st.sampled_from("abcdef"))
    def register(self, each: str) -> None:
        self.kept.register(each, self.now)
        self.heard[each] = self.now

    @rule(each=st.sampled_from("abcdef"))
    def beat(self, each: str) -> None:
        assert self.kept.beat(each, self.now) == (each in self.heard)
        if each in self.heard:
            self.heard[each] = self.now

    @rule(each=st.sampled_from("abcdef"))
    def leave(self, each: str) -> None:
        self.kept.forget(each)
        self.heard.pop(each, None)

    @rule(secs=st.floats(0.1, 50.0))
    def wait(self, secs: float) -> None:
        self.now += secs
        for each in self.kept.expired(self.now):
            assert self.now - self.heard.pop(each) >= TTL

    @invariant()
    def whoever_has_a_lease_is_known(self) -> None:
        assert len(self.kept) == len(self.heard)
        assert all(each in self.kept for each in self.heard)
        first = self.kept.next_at()
        assert (first is None) == (not self.heard)


TestBackends = Backends.TestCase
