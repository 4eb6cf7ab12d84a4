"""Silent backends take no clients and lose their rows; those that moved lose only their lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from edgeproxy.errors import StoreError
from tests.events import Events, events_of
from tests.registry.pop import DEADLINE_SECS, RegistryPop
from tests.store.editing import execute

OPERATORS = "INSERT INTO backends VALUES ('op', 'myapp', 'sa', '10.0.0.9', 80, 1, 1, 10, 20, 0)"


async def watching_until(pop: RegistryPop, condition: Callable[[], bool], what: str) -> None:
    """Watch the leases until a condition holds; fail after a deadline."""
    watching = asyncio.ensure_future(pop.watch.run())
    try:
        deadline = time.monotonic() + DEADLINE_SECS
        while not condition():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


def test_registered_backends_have_a_lease_from_the_start_and_operators_nodes_none(
    pop: RegistryPop,
) -> None:
    async def scenario() -> None:
        await pop.register("a", "b")
        execute(pop.path, OPERATORS)
        pop.move("b")
        await pop.table.publish()
        for backend_id in "ab":
            pop.leases.forget(backend_id)
        await pop.watch.load()
        assert set(pop.leases) == {"a"}
        assert pop.metrics.leases == 1

    asyncio.run(scenario())


def test_a_database_that_cannot_be_read_at_the_start_is_read_later(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a")
        pop.leases.forget("a")
        pop.rows.fault = StoreError("is away")
        await pop.watch.load()
        assert len(pop.leases) == 0
        pop.rows.fault = None
        await watching_until(pop, lambda: "a" in pop.leases, "a lease")

    asyncio.run(scenario())


def test_a_silent_backend_is_marked_and_its_row_deleted(brief: RegistryPop) -> None:
    async def scenario(events: Events) -> None:
        await brief.register("a")
        brief.rows.go_on.clear()
        await watching_until(
            brief, lambda: len(brief.rows.batches) == 2 and brief.is_expired("a"), "the mark"
        )
        assert brief.ids_in_database() == {"a"}  # the mark comes before the row is deleted
        brief.rows.go_on.set()
        await watching_until(
            brief, lambda: bool(events.named("backend_deregistered")), "the row is deleted"
        )
        assert not brief.ids_in_database()
        assert brief.metrics.leases_expired == 1

    with events_of("registry") as events:
        asyncio.run(scenario(events))
    [expired] = events.named("lease_expired")
    assert expired == {"backend": "a", "ttl_secs": 1.0}
    [gone] = events.named("backend_deregistered")
    assert gone == {"backend": "a", "reason": "expired"}


def test_a_backend_that_sends_heartbeats_stays(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a", "b")

        def is_b_gone() -> bool:
            assert brief.leases.beat("a", time.monotonic())
            return brief.ids_in_database() == {"a"}

        await watching_until(brief, is_b_gone, "b is gone")
        assert set(brief.leases) == {"a"}
        assert not brief.is_expired("a")

    asyncio.run(scenario())


def test_a_row_that_cannot_be_deleted_is_tried_again_and_takes_no_clients_meanwhile(
    brief: RegistryPop,
) -> None:
    async def scenario() -> None:
        await brief.register("a")
        brief.rows.fault = StoreError("is read-only")
        await watching_until(brief, lambda: len(brief.rows.batches) >= 3, "a second try")
        assert brief.is_expired("a")
        brief.rows.fault = None
        await watching_until(brief, lambda: not brief.ids_in_database(), "the row is deleted")

    asyncio.run(scenario())


def test_a_backend_that_moved_loses_its_lease_and_keeps_its_row(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a")
        brief.move("a")
        await watching_until(brief, lambda: "a" not in brief.leases, "the end of its lease")
        assert brief.metrics.leases_expired == 0
        assert brief.ids_in_database() == {"a"}
        assert not brief.is_expired("a")

    asyncio.run(scenario())


def test_a_backend_that_moved_unseen_gets_clients_again(brief: RegistryPop) -> None:
    """The database could not say so before the lease expired; then it refuses to delete the row."""

    async def scenario() -> None:
        await brief.register("a")
        brief.move("a")
        brief.rows.fault = StoreError("is away")
        await watching_until(brief, lambda: brief.is_expired("a"), "its lease has expired")
        brief.rows.fault = None
        await watching_until(brief, lambda: not brief.is_expired("a"), "the mark is taken back")
        assert brief.ids_in_database() == {"a"}

    asyncio.run(scenario())


def test_most_of_them_silent_at_once_are_held_back(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a", "b", "c")
        await watching_until(brief, lambda: brief.leases.holding, "they are held back")
        await watching_until(brief, lambda: brief.metrics.leases_held_back == 1, "its count")
        assert set(brief.leases) == brief.ids_in_database() == {"a", "b", "c"}

    with events_of("registry") as events:
        asyncio.run(scenario())
    assert events.named("leases_held_back") == [{"leases": 3}]
    assert not events.named("lease_expired")
