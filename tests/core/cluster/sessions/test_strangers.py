"""Strangers hold few places, however many come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.cluster.sessions.strangers import Strangers

ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"), st.floats(0, 1), st.sampled_from(["node", "fails", "stays"])
    ),
    max_size=200,
)


@given(ARRIVALS)
def test_places_are_held_until_the_end_and_for_a_time(
    arrivals: list[tuple[str, float, str]],
) -> None:
    strangers = Strangers(limit=6, per_address=3, hold_secs=2)
    held: list[tuple[float, str]] = []
    now = 0.0
    for address, pause_secs, fate in arrivals:
        now += pause_secs
        held = [(until, who) for until, who in held if until > now]
        has_room = len(held) < 6 and [who for _, who in held].count(address) < 3
        place = strangers.admit(address, now)
        assert (place is not None) == has_room
        if place is not None and fate == "node":
            strangers.proved(place)
            strangers.ended(place)
        elif place is not None and fate == "fails":
            strangers.ended(place)
            held.append((now + 2, address))
        elif place is not None:
            held.append((float("inf"), address))


def test_one_address_cannot_take_the_places_of_others() -> None:
    strangers = Strangers(limit=6, per_address=3, hold_secs=2)
    assert [strangers.admit("evil", 0.0) is None for _ in range(5)] == [False] * 3 + [True] * 2
    assert strangers.admit("node", 0.0) is not None


def test_who_proves_itself_gives_its_place_back_at_once_and_once() -> None:
    strangers = Strangers(limit=1, per_address=1, hold_secs=2)
    place = strangers.admit("node", 0.0)
    assert place is not None
    strangers.proved(place)
    other = strangers.admit("evil", 0.0)
    assert other is not None
    strangers.proved(place)
    assert strangers.admit("node", 0.0) is None
