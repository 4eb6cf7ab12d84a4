"""Silent backends take no clients and lose their lease; those that are heard elsewhere stay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from edgeproxy.core.backends.registration import End, Outcome, Ownership
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.nodes import Nodes
from tests.events import Events, events_of
from tests.registry.pop import DEADLINE_SECS, NODE, RegistryPop, registering
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
        pop.leases.forget("b")
        await pop.end("b")
        pop.elsewhere(registering("b"))
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


def test_a_silent_backend_is_marked_and_its_lease_ended(brief: RegistryPop) -> None:
    async def scenario(events: Events) -> None:
        await brief.register("a")
        brief.rows.go_on.clear()
        await watching_until(
            brief, lambda: len(brief.rows.batches) == 2 and brief.is_expired("a"), "the mark"
        )
        assert brief.ids_in_database() == {"a"}  # the mark comes before the end is written
        brief.rows.go_on.set()
        await watching_until(
            brief, lambda: bool(events.named("backend_deregistered")), "the end of its lease"
        )
        assert not brief.ids_in_database()
        assert [node.values["id"] for node in Nodes(brief.path).read()] == ["a"]
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


def test_an_end_that_cannot_be_written_is_tried_again_and_its_backend_takes_no_clients_meanwhile(
    brief: RegistryPop,
) -> None:
    async def scenario() -> None:
        await brief.register("a")
        brief.rows.fault = StoreError("is read-only")
        await watching_until(brief, lambda: len(brief.rows.batches) >= 3, "a second try")
        assert brief.is_expired("a")
        brief.rows.fault = None
        await watching_until(brief, lambda: not brief.ids_in_database(), "its lease has ended")

    asyncio.run(scenario())


def test_a_backend_that_another_pop_hears_is_not_missed(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a", "b", "c")  # enough of them to be held back
        for backend_id in "abc":
            assert brief.elsewhere(registering(backend_id)) is False
        await watching_until(brief, lambda: not len(brief.leases), "the end of its lease")
        await watching_until(brief, lambda: not brief.here(), "the end is written")
        assert brief.metrics.leases_expired == brief.metrics.leases_held_back == 0
        assert brief.ids_in_database() == {"a", "b", "c"}
        assert not any(map(brief.is_expired, "abc"))

    with events_of("registry") as events:
        asyncio.run(scenario())
    assert not events.named("lease_expired") + events.named("backend_deregistered")
    assert {event["backend"] for event in events.named("lease_moved")} == {"a", "b", "c"}


def test_a_backend_that_another_pop_hears_unseen_gets_clients_again(brief: RegistryPop) -> None:
    """The database could not say so before the lease expired."""

    async def scenario() -> None:
        await brief.register("a")
        brief.elsewhere(registering("a"))
        brief.rows.fault = StoreError("is away")
        await watching_until(brief, lambda: brief.is_expired("a"), "its lease has expired")
        brief.rows.fault = None
        await watching_until(brief, lambda: not brief.is_expired("a"), "the mark is taken back")
        assert brief.ids_in_database() == {"a"}

    asyncio.run(scenario())


def test_a_backend_that_registers_elsewhere_before_its_end_is_written_stays(
    brief: RegistryPop,
) -> None:
    async def scenario() -> None:
        await brief.register("a")
        brief.rows.go_on.clear()
        await watching_until(
            brief, lambda: len(brief.rows.batches) == 2 and brief.is_expired("a"), "the mark"
        )
        assert brief.elsewhere(registering("a")) is False
        brief.rows.go_on.set()
        await watching_until(brief, lambda: not brief.is_expired("a"), "the mark is taken back")
        assert brief.ids_in_database() == {"a"}
        assert brief.here() == set()

    asyncio.run(scenario())


def test_a_backend_that_is_heard_elsewhere_gets_clients_while_its_end_cannot_be_written(
    brief: RegistryPop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_edits: object) -> list[Outcome]:
        raise StoreError("is read-only")

    async def scenario() -> None:
        await brief.register("a")
        monkeypatch.setattr(brief.rows, "apply", refuse)
        await watching_until(brief, lambda: brief.is_expired("a"), "its lease has expired")
        brief.elsewhere(registering("a"))
        await watching_until(brief, lambda: not brief.is_expired("a"), "the mark is taken back")
        assert brief.here() == {"a"}

    asyncio.run(scenario())


def test_a_mark_ends_with_the_table_whatever_can_be_read_then(
    lasting: RegistryPop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep clients from the backend when that registers with another POP."""

    def fail() -> Ownership:
        raise StoreError("is away")

    async def scenario() -> None:
        await lasting.register("a")
        lasting.admission.drain("a", draining=True)  # so the gate forgets nothing of it
        lasting.leases.register("a", time.monotonic() - 6001)
        lasting.rows.go_on.clear()
        await watching_until(lasting, lambda: lasting.is_expired("a"), "its lease has expired")
        monkeypatch.setattr(lasting.rows, "ownership", fail)
        lasting.rows.go_on.set()
        live = lasting.admission.load.known("a")
        assert live is not None
        await watching_until(lasting, lambda: not live.lease_expired, "the mark is taken back")
        assert lasting.admission.load.known("a") is live
        assert not lasting.admission.table.candidates

    asyncio.run(scenario())


def test_a_backend_that_registers_elsewhere_before_its_end_is_seen_is_in_use_soon(
    lasting: RegistryPop,
) -> None:
    """No table was ever without it."""

    async def scenario() -> None:
        await lasting.register("a")
        lasting.leases.register("a", time.monotonic() - 6001)
        lasting.is_blind = True
        await watching_until(lasting, lambda: not lasting.ids_in_database(), "its lease has ended")
        assert lasting.elsewhere(registering("a")) is True
        lasting.is_blind = False
        assert lasting.is_expired("a")
        await watching_until(lasting, lambda: not lasting.is_expired("a"), "the mark is taken back")
        assert set(lasting.admission.table.candidates) == {"a"}

    asyncio.run(scenario())


def test_a_withheld_backend_that_an_operator_adds_gets_clients(brief: RegistryPop) -> None:
    async def scenario() -> None:
        await brief.register("a")
        await watching_until(brief, lambda: not brief.ids_in_database(), "the end of its lease")
        Nodes(brief.path).add(replace(NODE, id="a"))
        await brief.table.publish()
        await watching_until(brief, lambda: not brief.is_expired("a"), "the mark is taken back")
        assert "a" not in brief.leases

    asyncio.run(scenario())


def test_a_backend_that_an_operator_takes_over_loses_its_lease_and_no_client(
    brief: RegistryPop,
) -> None:
    async def scenario() -> None:
        await brief.register("a")
        execute(brief.path, "DELETE FROM backends")
        Nodes(brief.path).add(replace(NODE, id="a"))
        await watching_until(brief, lambda: "a" not in brief.leases, "the end of its lease")
        assert brief.metrics.leases_expired == 0
        assert not brief.is_expired("a")

    asyncio.run(scenario())


def test_rows_are_deleted_an_hour_after_their_leases_have_ended_whoever_heard_them(
    pop: RegistryPop,
) -> None:
    async def scenario(events: Events) -> None:
        for backend_id in "abc":
            pop.elsewhere(registering(backend_id))
            pop.elsewhere(End(backend_id, int(time.time())))
        pop.age(3590)
        pop.elsewhere(registering("b"))
        execute(pop.path, "UPDATE edgeproxy_leases SET ended_at = ended_at - 10 WHERE id = 'a'")
        await watching_until(pop, lambda: bool(events.named("withheld_deleted")), "a is deleted")
        assert [node.values["id"] for node in Nodes(pop.path).read()] == ["b", "c"]

    with events_of("registry") as events:
        asyncio.run(scenario(events))
    assert events.named("withheld_deleted") == [{"rows": 1}]


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
