"""A backend whose heartbeat could not be taken does not lose its lease."""

from __future__ import annotations

import asyncio
import time

from edgeproxy.registry.missed_heartbeats import MissedHeartbeats
from tests.registry.pop import RegistryPop
from tests.registry.test_lease_watch import watching_until

HOST = "10.0.0.1"
"""The address of all backends of a `RegistryPop`."""


def test_nobody_expires_while_nobody_could_be_heard(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a")
        checks = 0

        def have_checks_passed() -> bool:
            nonlocal checks
            checks += 1
            brief.missed_heartbeats.missed_everyone()
            return checks > 400  # of 10 ms each: four leases at least

        await watching_until(brief, have_checks_passed, "the checks")
        assert set(brief.leases) == brief.ids_in_database() == {"a"}
        await watching_until(brief, lambda: not brief.ids_in_database(), "the end of its lease")

    asyncio.run(scenario())


def test_only_backends_of_a_caller_that_was_turned_away_are_excused(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a", "b")
        brief.missed_heartbeats.heard("a", "10.0.0.77")
        # Both have one address, so both are of that caller; one is of another, too.
        assert brief.missed_heartbeats.leases_of(HOST, 1.0) == 2
        assert brief.missed_heartbeats.leases_of("10.0.0.77", 1.0) == 1
        assert brief.missed_heartbeats.leases_of("10.0.0.78", 1.0) == 0

        def is_b_gone() -> bool:
            brief.missed_heartbeats.missed("10.0.0.77", 1.5)
            return brief.ids_in_database() == {"a"}

        await watching_until(brief, is_b_gone, "b is gone")
        assert set(brief.leases) == {"a"}

    asyncio.run(scenario())


def test_an_address_is_known_by_its_ipv6_network(pop: RegistryPop) -> None:
    pop.leases.register("a", 1.0)
    missed_heartbeats = MissedHeartbeats(pop.leases, dict)
    missed_heartbeats.heard("a", "fd00::1")
    assert missed_heartbeats.leases_of("fd00::2", 1.0) == 1


def test_no_lease_is_judged_while_callers_wait_to_be_accepted(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a")
        brief.missed_heartbeats.is_behind = True
        await watching_until(
            brief, lambda: (brief.leases.next_at() or 0.0) + 1.0 < time.monotonic(), "its end"
        )
        assert "a" in brief.leases
        brief.missed_heartbeats.is_behind = False
        await watching_until(brief, lambda: not brief.ids_in_database(), "the end of its lease")

    asyncio.run(scenario())


def test_only_backends_with_a_lease_are_remembered(pop: RegistryPop) -> None:
    missed_heartbeats = MissedHeartbeats(pop.leases, dict)
    for number in range(5000):
        missed_heartbeats.heard(str(number), "10.0.0.1")
        pop.leases.register(f"{number}x", 1.0)
        missed_heartbeats.heard(f"{number}x", "10.0.0.2")
        pop.leases.forget(f"{number}x")
    assert (
        missed_heartbeats.leases_of("10.0.0.1", 1.0)
        == missed_heartbeats.leases_of("10.0.0.2", 1.0)
        == 0
    )
