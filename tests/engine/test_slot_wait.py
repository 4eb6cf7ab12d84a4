"""Who may wait for a slot: everybody leaves room to others, and places come back."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.contract import Wait
from edgeproxy.engine.slot_wait import MAX_WAITING, Shares

CLIENTS = [(f"{site}{number}", site) for site in ("", "a", "b") for number in range(3)]


def _wait(client: str, site: str = "") -> Wait:
    return Wait(None, "slots", client, site)


def _fill(shares: Shares, wait: Wait) -> int:
    """Let a client wait as often as there is room; return how often."""
    count = 0
    while shares.has_room(wait):
        shares.enter(wait)
        count += 1
    return count


def test_a_client_has_as_many_places_as_it_leaves_free() -> None:
    shares = Shares()
    counts = [_fill(shares, _wait(client)) for client in "abc"]
    assert counts == [MAX_WAITING // 2, MAX_WAITING // 4, MAX_WAITING // 8]


def test_a_site_has_twice_as_many_places_as_it_leaves_free() -> None:
    shares = Shares()
    count = sum(_fill(shares, _wait(f"a{number}", "a")) for number in range(MAX_WAITING))
    assert count == math.ceil(MAX_WAITING * 2 / 3)
    assert shares.has_room(_wait("b0", "b"))
    assert shares.has_room(_wait("c"))


@given(st.lists(st.tuples(st.sampled_from(CLIENTS), st.integers(1, MAX_WAITING)), max_size=20))
def test_one_without_a_place_finds_room_and_all_come_back(
    crowds: list[tuple[tuple[str, str], int]],
) -> None:
    shares = Shares()
    inside = []
    for client, number in crowds:
        wait = _wait(*client)
        for _ in range(number):
            if shares.has_room(wait):
                shares.enter(wait)
                inside.append(wait)
    assert len(inside) < MAX_WAITING
    assert shares.has_room(_wait("new", "new"))
    for wait in inside:
        shares.leave(wait)
    assert _fill(shares, _wait("new")) == MAX_WAITING // 2
