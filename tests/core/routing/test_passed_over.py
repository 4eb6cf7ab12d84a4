"""Candidates that failed lately come back in time, and are a last resort until then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.backends.live_state import Circuit
from edgeproxy.core.routing.passed_over import READMITTED_AT_ONCE, PassedOver
from edgeproxy.core.routing.ranking import Candidate, Entry
from tests.core.routing.test_ranking import candidate


def entry_of(of: Candidate, load: float = 0.0) -> Entry:
    """Give a candidate its current entry."""
    of.entry = (load, 0.0, of.sequence, of)
    return of.entry


def readmitted(from_: PassedOver, now: float) -> set[str]:
    """Return the ids of the candidates that come back at this time."""
    ranked: list[Entry] = []
    while from_.readmit(now, ranked.append):
        pass
    return {entry[3].backend.id for entry in ranked}


def failed(*until: float) -> tuple[PassedOver, list[Candidate]]:
    """Return candidates that are passed over until these times."""
    passed_over, candidates = PassedOver(len(until)), []
    for number, secs in enumerate(until):
        one = candidate(chr(97 + number), hard=1)
        one.live.passed_over_until = secs
        candidates.append(one)
        passed_over.add(entry_of(one, float(number)))
    return passed_over, candidates


@given(st.lists(st.floats(0, 9), max_size=8), st.lists(st.floats(0, 10), max_size=8))
def test_each_comes_back_once_when_its_time_is_over(until: list[float], times: list[float]) -> None:
    passed_over, candidates = failed(*until)
    seen: set[str] = set()
    for now in sorted(times):
        back = readmitted(passed_over, now)
        assert not back & seen
        seen |= back
        assert seen == {one.backend.id for one in candidates if one.live.passed_over_until <= now}


def test_one_whose_time_was_prolonged_comes_back_later() -> None:
    passed_over, (one,) = failed(5.0)
    one.live.passed_over_until = 8.0
    assert readmitted(passed_over, 6.0) == set()
    assert readmitted(passed_over, 8.0) == {"a"}


def test_thousands_come_back_in_parts() -> None:
    passed_over, _ = failed(*(1.0 for _ in range(3 * READMITTED_AT_ONCE)))
    ranked: list[Entry] = []
    assert passed_over.readmit(1.0, ranked.append)
    assert len(ranked) == READMITTED_AT_ONCE


def test_the_last_resort_is_the_least_loaded_that_may_be_tried() -> None:
    passed_over, (first, second, third) = failed(9.0, 9.0, 9.0)

    def best(*tried: str) -> str | None:
        entry = passed_over.best(tried)
        return entry[3].backend.id if entry else None

    assert best() == "a"
    assert best("a") == "b"
    assert best("a", "b", "c") is None
    assert best() == "a"
    first.live.active = 1
    second.live.circuit = Circuit.OPEN
    assert best() == "c"
    third.live.active = 1
    assert best() is None
    assert first.entry is third.entry is None


def test_one_that_came_back_is_no_last_resort() -> None:
    passed_over, _ = failed(1.0)
    assert readmitted(passed_over, 1.0) == {"a"}
    assert passed_over.best(()) is None
