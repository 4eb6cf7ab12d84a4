"""A ranking always gives the least loaded eligible candidate, ties by turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveState
from edgeproxy.core.routing import ranking
from edgeproxy.core.routing.eligibility import ineligible
from edgeproxy.core.routing.ranking import Candidate, Entry, Ranking


def candidate(backend_id: str, weight: int = 1, soft: int = 10, hard: int = 0) -> Candidate:
    """Return an idle candidate."""
    backend = Backend(
        backend_id, "myapp", "sa", "10.0.0.1", 80, weight=weight, soft_limit=soft, hard_limit=hard
    )
    return Candidate(backend, LiveState(backend_id), sequence=ord(backend_id))


def chosen(of: Ranking, now: float = 0.0, tried: tuple[str, ...] = ()) -> str | None:
    """Return the id of the candidate to choose."""
    entry = of.best(now, tried)
    return entry[3].backend.id if entry else None


def set_active(of: Candidate, active: int) -> None:
    """Change a candidate's load."""
    of.live.active = active
    of.place()


def test_a_full_candidate_comes_back_when_a_slot_is_released() -> None:
    only = candidate("a", hard=1)
    ranked = Ranking([only])
    set_active(only, 1)
    assert chosen(ranked) is None
    set_active(only, 0)
    assert chosen(ranked) == "a"


def test_one_passed_over_comes_back_by_itself() -> None:
    first, second = candidate("a"), candidate("b")
    ranked = Ranking([first, second])
    first.live.passed_over_until = 5.0
    assert chosen(ranked, now=1.0) == "b"
    set_active(second, 5)
    assert chosen(ranked, now=4.9) == "b"
    assert chosen(ranked, now=5.0) == "a"


def test_one_that_was_tried_is_skipped_for_that_client_only() -> None:
    other = candidate("b")
    ranked = Ranking([candidate("a"), other])
    assert chosen(ranked, tried=("a",)) == "b"
    assert chosen(ranked, tried=("a", "b")) is None
    set_active(other, 1)
    assert chosen(ranked) == "a"


def last_resort(of: Ranking, tried: tuple[str, ...] = ()) -> str | None:
    """Return the id of the candidate to choose when no other is left."""
    entry = of.passed_over.best(tried)
    return entry[3].backend.id if entry else None


def test_the_last_resort_is_the_least_loaded_that_failed_lately_and_is_not_full() -> None:
    first, second = candidate("a"), candidate("b", hard=2)
    ranked = Ranking([first, second])
    set_active(first, 5)
    first.live.passed_over_until = second.live.passed_over_until = 9.0
    assert chosen(ranked) is None
    assert last_resort(ranked) == "b"
    assert last_resort(ranked, ("b",)) == "a"
    assert last_resort(ranked) == "b"
    set_active(second, 2)
    assert chosen(ranked) is None
    assert last_resort(ranked) == "a"
    set_active(second, 1)
    assert chosen(ranked) is None
    assert last_resort(ranked) == "b"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=12),
    st.lists(
        st.tuples(st.integers(0, 11), st.integers(0, 4), st.floats(0, 9), st.booleans()),
        max_size=200,
    ),
)
def test_the_choice_is_the_minimum_whatever_happened_before(
    members: list[tuple[int, int]], changes: list[tuple[int, int, float, bool]]
) -> None:
    candidates = [
        candidate(chr(97 + n), weight, soft=3, hard=hard)
        for n, (weight, hard) in enumerate(members)
    ]
    ranked = Ranking(candidates)
    now = 0.0
    for index, active, until, look in changes:
        changed = candidates[index % len(candidates)]
        changed.live.passed_over_until = until
        changed.entry = None  # it may have been passed over: rank it anew in any case
        set_active(changed, active)
        now += 0.1
        if look:
            eligible = [
                each for each in candidates if ineligible(each.backend, each.live, now) is None
            ]
            entry = ranked.best(now, ())
            if not eligible:
                assert entry is None
                continue
            assert entry is not None
            assert entry[0] == min(each.load() for each in eligible)
            entry[3].take_turn(ranked)
            entry[3].place()


def test_turns_keep_shares_exact_while_nobody_holds_anything() -> None:
    candidates = [candidate("a", 5), candidate("b", 3), candidate("c", 2)]
    ranked = Ranking(candidates)
    counts = dict.fromkeys("abc", 0)
    for _ in range(1000):
        entry = ranked.best(0.0, ())
        assert entry is not None
        entry[3].take_turn(ranked)
        entry[3].place()
        counts[entry[3].backend.id] += 1
    assert counts == {"a": 500, "b": 300, "c": 200}


def chosen_in_turn(ranked: Ranking, times: int) -> dict[str, int]:
    """Count who is chosen by so many clients who do not stay."""
    counts: dict[str, int] = {}
    for _ in range(times):
        entry = ranked.best(0.0, ())
        assert entry is not None
        entry[3].take_turn(ranked)
        for active in (1, 0):
            set_active(entry[3], active)
        counts[entry[3].backend.id] = counts.get(entry[3].backend.id, 0) + 1
    return counts


def set_share(of: Candidate, share: float) -> None:
    """Change what a candidate has of its weight."""
    of.live.share = share
    of.weigh()
    of.entry = None
    of.place()


def test_a_share_of_its_weight_holds_among_equal_weights_too() -> None:
    candidates = [candidate("a"), candidate("b")]
    ranked = Ranking(candidates)
    chosen_in_turn(ranked, 11)
    set_share(candidates[0], 0.1)
    assert chosen_in_turn(ranked, 44) == {"a": 4, "b": 40}
    set_share(candidates[0], 0.5)
    assert chosen_in_turn(ranked, 30) == {"a": 10, "b": 20}
    set_share(candidates[0], 1.0)
    assert chosen_in_turn(ranked, 22) == {"a": 11, "b": 11}


def test_a_small_share_is_known_to_a_new_ranking() -> None:
    candidates = [candidate("a"), candidate("b")]
    candidates[0].live.share = 0.1
    candidates[0].weigh()
    ranked = Ranking(candidates)
    assert chosen_in_turn(ranked, 44) == {"a": 4, "b": 40}


def test_where_all_come_slowly_the_least_loaded_is_chosen() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("c")]
    ranked = Ranking(candidates)
    for each in candidates:
        set_share(each, 0.3)
    assert chosen_in_turn(ranked, 30) == {"a": 10, "b": 10, "c": 10}
    for each, active in zip(candidates, (2, 1, 3), strict=True):
        set_active(each, active)
    assert chosen(ranked) == "b"
    assert chosen(ranked, tried=("b",)) == "a"


def test_one_that_comes_slowly_is_there_where_nobody_else_is_eligible() -> None:
    candidates = [candidate("a"), candidate("b", hard=1)]
    ranked = Ranking(candidates)
    set_share(candidates[0], 0.1)
    set_active(candidates[0], 7)
    assert chosen(ranked) == "b"
    set_active(candidates[1], 1)
    assert chosen(ranked) == "a"


def test_who_has_all_of_its_weight_again_keeps_nobody_of_its_weight_waiting() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("c", weight=3)]
    ranked = Ranking(candidates)
    set_share(candidates[0], 0.1)
    chosen_in_turn(ranked, 5)
    set_share(candidates[0], 1.0)
    for _ in range(10):
        assert chosen_in_turn(ranked, 5)["b"] == 1


@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.floats(0.1, 1)), min_size=1),
    st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.floats(0.1, 1)), max_size=50),
)
def test_what_a_place_has_is_the_sum_of_what_its_members_have(
    members: list[tuple[int, bool, float]], changes: list[tuple[int, bool, float]]
) -> None:
    candidates = [candidate(chr(97 + n), weight) for n, (weight, _, _) in enumerate(members)]
    rankings = [Ranking(candidates), Ranking(candidates[:2])]
    news = [(n, away, share) for n, (_, away, share) in enumerate(members)]
    for index, away, share in news + changes:
        each = candidates[index % len(candidates)]
        each.live.share = share
        each.live.down = away
        each.weigh()
    for ranked in rankings:
        there = [each for each in ranked.members if each.live.takes_clients]
        assert ranked.available == sum(
            int(each.backend.weight * each.live.share * ranking.PARTS) for each in there
        )


def test_entries_that_nobody_looks_at_do_not_pile_up() -> None:
    candidates = [candidate("a"), candidate("b")]
    ranked = Ranking(candidates)
    for number in range(10_000):
        set_active(candidates[0], number % 2)
    held = len(ranked._busy) + sum(map(len, ranked._idle.values()))
    assert held < 500


def numbered(count: int) -> list[Candidate]:
    """Return idle candidates."""
    row = Backend("x", "myapp", "sa", "10.0.0.1", 80, soft_limit=1000)
    return [Candidate(row, LiveState(str(number)), sequence=number) for number in range(count)]


def test_no_placement_looks_at_more_than_a_few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound clients come and go, and nobody looks at the front: nothing is made anew at once."""
    candidates = numbered(500)
    ranked = Ranking(candidates)
    looked_at = most = longest = 0

    def counted(entry: Entry) -> bool:
        nonlocal looked_at
        looked_at += 1
        return entry[3].entry is entry

    monkeypatch.setattr(ranking, "is_current", counted)
    for load in (1, 2, 3, 4, 3, 2, 5, 1, 2, 0, 1, 2) * 3:
        for each in candidates:
            looked_at = 0
            set_active(each, load)
            most = max(most, looked_at)
            longest = max(longest, len(ranked._busy) + len(ranked._busy_rest))
    assert 0 < most <= ranking.MOVED_AT_ONCE
    assert longest < 4 * len(candidates) + 300
    set_active(candidates[123], 0)
    best = ranked.best(0.0, ())
    assert best is candidates[123].entry


def test_clients_that_stay_leave_nothing_before_the_next_choice() -> None:
    """Thousands of idle candidates become busy at other places than the front of the queue."""
    candidates = numbered(5000)
    ranked = Ranking(candidates)
    for each in candidates[1:-1]:
        set_active(each, 1)
    stood = 0

    class Watching(Ranking):
        def _stands(self, *arguments: Any) -> bool:
            nonlocal stood
            stood += 1
            return super()._stands(*arguments)

    ranked.__class__ = Watching
    assert ranked.best(0.0, ("other",)) is candidates[0].entry
    set_active(candidates[0], 1)
    assert ranked.best(0.0, ()) is candidates[-1].entry
    assert stood <= 4


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=400))
def test_after_any_changes_the_least_loaded_is_chosen(changes: list[tuple[int, int]]) -> None:
    candidates = numbered(6)
    ranked = Ranking(candidates)
    ranked._most = 8  # heaps are made anew all the time
    for index, load in changes:
        set_active(candidates[index], load)
        best = ranked.best(0.0, ())
        assert best is not None
        assert best[0] == min(each.load() for each in candidates)
        assert best is best[3].entry


def test_a_ranking_is_made_and_taken_apart_with_rests_in_between() -> None:
    candidates = numbered(2000)
    for each in candidates[:500]:
        each.live.active = 1
    for each in candidates[500:1000]:
        each.live.down = True
    candidates = [Candidate(each.backend, each.live, each.sequence) for each in candidates]
    rests = 0

    def rest() -> None:
        nonlocal rests
        rests += 1

    ranked = Ranking(candidates, rest)
    assert rests >= len(candidates) // 4
    rests = 0
    ranked.clear(rest)
    assert rests >= len(candidates) // 4
    assert not ranked._busy
    assert not any(ranked._idle.values())
