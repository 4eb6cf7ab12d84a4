"""Registered backends find room when others hold all there is, and who does not is remembered."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from edgeproxy.api.http1.connection_limits import MORE_THAN_BACKENDS, ConnectionLimits, Place, Room
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.leases import Leases
from edgeproxy.registry.missed_heartbeats import MissedHeartbeats

LOW, HIGH, TOO_HIGH = 50, 100, 120
"""Descriptors: for all, for registered backends, for nobody."""
ROOM = Room(most=40, ceiling=HIGH, reserve_ceiling=TOO_HIGH)
RESERVE = 10
TTL_SECS = 60.0


class Callers:
    """Connections by name, at one API that allows 10.0.0.0/8 in a way."""

    def __init__(self, backends: Iterable[tuple[str, str]] = (), room: Room = ROOM) -> None:
        self.now = 1000.0
        self.leases = Leases(TTL_SECS)
        known = {
            backend_id: Backend(backend_id, "myapp", "sa", address, 80)
            for backend_id, address in backends
        }
        for backend_id in known:
            self.leases.register(backend_id, self.now)
        self.missed_heartbeats = MissedHeartbeats(self.leases, lambda: known)
        self.limits = ConnectionLimits(
            lambda caller: caller.startswith(("10.", "fd00:")), self.missed_heartbeats, room
        )

    def enter(self, caller: str, descriptor: int = LOW) -> Place | None:
        return self.limits.enter(caller, descriptor, self.now)

    def crowd(self, caller: str) -> list[Place]:
        """Open connections until one is too many."""
        places = []
        while (place := self.enter(caller)) is not None:
            places.append(place)
        return places

    def is_excused(self, backend_id: str) -> bool:
        """Return whether a lease begins anew when what was missed is counted."""
        before = self.leases.silence(backend_id, self.now)
        self.missed_heartbeats.excuse(self.now)
        return self.leases.silence(backend_id, self.now) != before


def test_one_caller_gets_half_and_two_get_all() -> None:
    callers = Callers()
    assert len(callers.crowd("10.0.0.1")) == 20
    assert len(callers.crowd("10.0.0.2")) == 20
    assert callers.enter("10.0.0.3") is None


def test_one_ipv6_network_is_one_caller() -> None:
    callers = Callers()
    assert len(callers.crowd("fd00::1")) == 20
    assert callers.enter("fd00::2") is None


def test_callers_that_are_not_allowed_share_a_few() -> None:
    callers = Callers()
    assert len(callers.crowd("192.0.2.1")) == 10
    assert callers.enter("192.0.2.2") is None
    assert callers.enter("10.0.0.1") is not None


def test_what_has_ended_makes_room() -> None:
    callers = Callers()
    places = callers.crowd("10.0.0.1")
    callers.limits.leave(places[0])
    assert len(callers.crowd("10.0.0.1")) == 1
    assert callers.limits.total == len(places)


def test_registered_backends_get_in_when_others_hold_all() -> None:
    callers = Callers([("a", "10.0.0.8"), ("b", "10.0.0.9")])
    callers.crowd("10.0.0.1")
    callers.crowd("10.0.0.2")
    assert callers.enter("10.0.0.3") is None
    assert len(callers.crowd("10.0.0.8")) == min(1 + MORE_THAN_BACKENDS, RESERVE // 2)
    assert callers.enter("10.0.0.9") is not None


def test_registered_backends_get_descriptors_that_others_do_not() -> None:
    callers = Callers([("a", "10.0.0.8")])
    assert callers.enter("10.0.0.1", HIGH) is None
    assert callers.enter("10.0.0.8", HIGH) is not None
    assert callers.enter("10.0.0.8", TOO_HIGH) is None


def test_the_address_that_heartbeats_come_from_counts() -> None:
    callers = Callers([("a", "10.0.0.8")])
    callers.missed_heartbeats.heard("a", "10.0.0.77")
    assert callers.enter("10.0.0.77", HIGH) is not None
    callers.leases.forget("a")
    callers.now += 10.0
    assert callers.enter("10.0.0.77", HIGH) is None


@pytest.mark.parametrize("descriptor", [LOW, HIGH])
def test_no_room_for_anybody_excuses_every_backend(descriptor: int) -> None:
    callers = Callers([("a", "10.0.0.8")])
    if descriptor == LOW:
        callers.crowd("10.0.0.1")
        callers.crowd("10.0.0.2")
    callers.missed_heartbeats.excuse(callers.now)
    callers.now += 30.0
    assert not callers.is_excused("a")
    assert callers.enter("10.0.0.3", descriptor) is None
    assert callers.is_excused("a")
    callers.now += 30.0
    assert not callers.is_excused("a")


def test_a_caller_that_takes_too_much_excuses_only_its_own_backends() -> None:
    callers = Callers([("a", "10.0.0.8"), ("b", "10.0.0.9")])
    callers.now += 30.0
    callers.crowd("10.0.0.8")
    callers.missed_heartbeats.excuse(callers.now)
    assert callers.leases.silence("a", callers.now) == 0.0
    assert callers.leases.silence("b", callers.now) == 30.0


def test_callers_that_are_not_allowed_excuse_nobody() -> None:
    callers = Callers([("a", "10.0.0.8")])
    callers.now += 30.0
    callers.crowd("192.0.2.1")
    assert callers.enter("192.0.2.1", HIGH) is None
    assert not callers.is_excused("a")
