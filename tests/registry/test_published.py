"""The table in force, as the registry reads, publishes and marks it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from edgeproxy.registry import published
from tests.registry.pop import DEADLINE_SECS, NODE, RegistryPop
from tests.store.editing import execute

A, B = replace(NODE, id="a"), replace(NODE, id="b", wg_ip="10.0.0.2")


def test_backends_are_found_by_id_as_they_are_in_force(pop: RegistryPop) -> None:
    assert pop.table.backends() == {}
    pop.in_force = (A, B)
    assert pop.table.backends() == {"a": A, "b": B}
    pop.in_force = (replace(A, weight=7),)
    assert pop.table.backends() == {"a": replace(A, weight=7)}


def test_a_backend_that_is_no_longer_in_force_loses_its_lease(pop: RegistryPop) -> None:
    for backend_id in "ab":
        pop.leases.register(backend_id, 0.0)
    pop.in_force = (A, B)
    pop.table.backends()
    assert set(pop.leases) == {"a", "b"}
    pop.in_force = (B,)
    pop.table.backends()
    assert set(pop.leases) == {"b"}


def test_deleted_backends_are_not_counted(pop: RegistryPop) -> None:
    pop.in_force = (A, replace(B, deleted=True))
    assert pop.table.count() == 1


def test_what_the_database_holds_is_in_force_when_publishing_returns(pop: RegistryPop) -> None:
    async def scenario() -> None:
        execute(pop.path, "INSERT INTO backends VALUES ('a','x','sa','10.0.0.1',80,1,1,1,1,0)")
        assert "a" not in pop.admission.table.candidates
        await pop.table.publish()
        assert "a" in pop.admission.table.candidates

    asyncio.run(scenario())


def test_marks_of_expired_leases_come_and_go(pop: RegistryPop) -> None:
    async def scenario() -> None:
        await pop.register("a", "b")
        await pop.table.mark(["a", "unknown"], expired=True)
        assert (pop.is_expired("a"), pop.is_expired("b")) == (True, False)
        await pop.table.mark(["a", "b"], expired=False)
        assert (pop.is_expired("a"), pop.is_expired("b")) == (False, False)

    asyncio.run(scenario())


def test_a_function_runs_on_the_gate_thread_and_its_result_or_error_comes_back(
    pop: RegistryPop,
) -> None:
    def fail() -> None:
        raise ValueError("a fault")

    async def scenario() -> None:
        thread = await pop.table.on_gate(threading.current_thread)
        assert thread is not threading.current_thread()
        assert await pop.table.on_gate(threading.current_thread) is thread
        with pytest.raises(ValueError, match="a fault"):
            await pop.table.on_gate(fail)

    asyncio.run(scenario())


def test_a_gate_that_does_not_answer_is_given_up(
    pop: RegistryPop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "GATE_SECS", 0.05)
    go_on = threading.Event()

    async def scenario() -> None:
        pop.engine.call(lambda: go_on.wait(DEADLINE_SECS))
        with pytest.raises(TimeoutError):
            await pop.table.on_gate(int)
        go_on.set()

    asyncio.run(scenario())
