"""A suspicion lasts less the more members share it, and never less than the least."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.swim.suspicion import Suspicion

SECS = (4.0, 24.0)


def suspicion(wanted: int = 3) -> Suspicion:
    return Suspicion("a", 100.0, SECS, wanted)


def test_one_accuser_alone_waits_for_the_most() -> None:
    assert suspicion().ends_at() == 124


@pytest.mark.parametrize(("confirmations", "secs"), [(1, 14.0), (2, 8.15), (3, 4.0)])
def test_confirmations_shorten_it_with_the_decay_of_memberlist(
    confirmations: int, secs: float
) -> None:
    shared = suspicion()
    for number in range(confirmations):
        assert shared.confirm(f"other {number}")
    assert math.isclose(shared.ends_at() - 100, secs, abs_tol=0.01)


def test_an_accuser_counts_once() -> None:
    shared = suspicion()
    assert not shared.confirm("a")
    assert shared.confirm("b")
    assert not shared.confirm("b")
    assert shared.ends_at() == 114


def test_more_than_are_wanted_are_no_news() -> None:
    shared = suspicion(wanted=1)
    assert shared.confirm("b")
    assert not shared.confirm("c")


def test_where_nobody_can_confirm_it_lasts_twice_the_least() -> None:
    assert suspicion(wanted=0).ends_at() == 108


def test_after_a_death_elsewhere_it_lasts_the_least() -> None:
    shared = suspicion()
    shared.confirm_wholly()
    assert shared.ends_at() == 104


@given(st.lists(st.sampled_from("abcdefgh"), max_size=20), st.integers(0, 5))
def test_it_only_gets_shorter_and_never_below_the_least(accusers: list[str], wanted: int) -> None:
    shared = suspicion(wanted)
    before = shared.ends_at()
    for accuser in accusers:
        shared.confirm(accuser)
        assert 104 <= shared.ends_at() <= before
        before = shared.ends_at()
