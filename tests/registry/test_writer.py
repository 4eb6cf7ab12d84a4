"""Registrations are written many at a time, and are in force when their callers go on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edgeproxy.core.backends.registration import CrowdedError, Register, Remove
from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.nodes import Nodes
from tests.events import events_of
from tests.registry.pop import RegistryPop, registering
from tests.waiting import wait_until


def test_a_registration_is_stored_in_force_and_leased_when_its_caller_goes_on(
    pop: RegistryPop,
) -> None:
    async def scenario() -> None:
        assert await pop.register("a") == [True]
        assert pop.ids_in_database() == {"a"}
        assert set(pop.admission.table.candidates) == {"a"}
        assert "a" in pop.leases
        assert pop.metrics.leases == 1
        assert await pop.register("a") == [False]  # it is not new
        assert (await pop.writer.ownership()).here == {"a"}

    asyncio.run(scenario())


def test_edits_that_come_during_a_write_are_written_together(pop: RegistryPop) -> None:
    async def scenario() -> None:
        pop.rows.go_on.clear()
        first = asyncio.ensure_future(pop.register("a"))
        await asyncio.to_thread(wait_until, lambda: pop.rows.batches, "the first write")
        others = asyncio.ensure_future(pop.register("b", "c", "d"))
        await asyncio.sleep(0)
        versions = pop.admission.table.version
        pop.rows.go_on.set()
        assert (await first, await others) == ([True], [True] * 3)
        assert [len(each) for each in pop.rows.batches] == [1, 3]
        assert pop.admission.table.version == versions + 2

    asyncio.run(scenario())


def test_a_refused_edit_does_not_affect_the_others_of_its_batch(pop: RegistryPop) -> None:
    async def scenario() -> None:
        crowded = Register(registering("b").backend, most=1)
        outcomes = await asyncio.gather(
            pop.writer.write(registering("a")), pop.writer.write(crowded)
        )
        assert outcomes[0] is True
        assert isinstance(outcomes[1], CrowdedError)
        assert set(pop.leases) == pop.ids_in_database() == {"a"}

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [StoreError("is away"), RuntimeError("a bug")])
def test_a_write_that_fails_is_the_outcome_of_each_edit_and_the_next_one_is_tried(
    pop: RegistryPop, fault: Exception
) -> None:
    async def scenario() -> None:
        pop.rows.fault = fault
        outcomes = await pop.register("a", "b")
        assert all(isinstance(each, StoreError) for each in outcomes)
        assert str(outcomes[0]) == (repr(fault) if isinstance(fault, RuntimeError) else "is away")
        assert len(pop.leases) == 0
        pop.rows.fault = None
        assert await pop.register("a", "b") == [True, True]

    with events_of("registry") as events:
        asyncio.run(scenario())
    assert bool(events.named("registry_failed")) == isinstance(fault, RuntimeError)


def test_a_deregistration_ends_the_lease_and_the_row(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a", "b")
        assert await pop.deregister("a") is True
        assert pop.ids_in_database() == set(pop.admission.table.candidates) == {"b"}
        assert set(pop.leases) == {"b"}
        assert pop.metrics.leases == 1
        assert await pop.deregister("a") is False

    asyncio.run(scenario())


def test_an_expired_lease_that_was_renewed_since_does_not_end(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a")
        written = len(pop.rows.batches)
        assert await pop.end("a") is False
        assert len(pop.rows.batches) == written
        assert pop.ids_in_database() == set(pop.leases) == {"a"}

    asyncio.run(scenario())


def test_an_expired_lease_without_a_renewal_takes_the_backend_out_and_keeps_its_row(
    pop: RegistryPop,
) -> None:
    async def scenario() -> None:
        await pop.register("a")
        pop.leases.forget("a")
        assert await pop.end("a") is True
        assert pop.ids_in_database() == set(pop.admission.table.candidates) == set()
        assert [node.values["id"] for node in Nodes(pop.path).read()] == ["a"]
        assert await pop.register("a") == [True]
        assert pop.ids_in_database() == set(pop.leases) == {"a"}

    asyncio.run(scenario())


def test_a_row_that_is_deleted_later_goes_only_if_it_is_withheld(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a", "b")
        pop.leases.forget("a")
        await pop.end("a")
        edits = [Remove(each, 1000) for each in "ab"]
        assert await asyncio.gather(*map(pop.writer.write, edits)) == [True, False]
        assert [node.values["id"] for node in Nodes(pop.path).read()] == ["b"]
        assert set(pop.leases) == {"b"}

    asyncio.run(scenario())


def test_a_registration_takes_back_the_mark_of_an_expired_lease(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a")
        await pop.table.mark(["a"], expired=True)
        await pop.register("a")
        assert not pop.is_expired("a")

    asyncio.run(scenario())


def test_closing_waits_for_the_write_that_is_under_way(pop: RegistryPop) -> None:
    async def scenario() -> None:
        pop.rows.go_on.clear()
        writing = asyncio.ensure_future(pop.register("a"))
        await asyncio.to_thread(wait_until, lambda: pop.rows.batches, "the write")
        closing = threading.Thread(target=pop.writer.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        pop.rows.go_on.set()
        assert await writing == [True]

    asyncio.run(scenario())
    assert pop.ids_in_database() == {"a"}
