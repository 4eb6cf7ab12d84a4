"""Nobody takes the room in which others would begin."""

from __future__ import annotations

from edgeproxy.core.admission.arrivals import Arrivals


def arrivals(room: int) -> Arrivals:
    made = Arrivals()
    made.room = room
    return made


def fill(made: Arrivals, key: str) -> int:
    """Let a client begin as often as it may; return how often that was."""
    count = 0
    while made.has_room(key):
        made.enter(key)
        count += 1
    return count


def test_one_client_has_a_part_of_the_room() -> None:
    made = arrivals(800)
    assert fill(made, "192.0.2.1") == 100
    assert made.has_room("192.0.2.2")


def test_a_site_has_two_parts_however_many_clients_it_has() -> None:
    made = arrivals(800)
    assert sum(fill(made, f"2001:db8:1:{number}") for number in range(50)) == 200
    assert made.has_room("2001:db8:2:1")


def test_half_of_the_room_is_for_clients_that_have_little() -> None:
    made = arrivals(800)
    assert [fill(made, f"192.0.2.{number}") for number in range(6)] == [100] * 4 + [4] * 2


def test_everything_is_given_back() -> None:
    made = arrivals(800)
    for _ in range(2):
        counts = {key: fill(made, key) for key in ("192.0.2.1", "2001:db8:1:1", "2001:db8:1:2")}
        for key, count in counts.items():
            for _ in range(count):
                made.leave(key)
        assert (len(made), made._counts) == (0, {})


def test_without_a_known_room_nobody_is_bounded() -> None:
    made = arrivals(0)
    for _ in range(1000):
        assert made.has_room("192.0.2.1")
        made.enter("192.0.2.1")
