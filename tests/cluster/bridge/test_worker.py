"""The thread of a bridge: edits are carried at once, and faults end nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.cluster.bridge.worker import BridgeWorker
from edgeproxy.cluster.engine import EngineError
from tests.cluster.bridge.pops import Pop
from tests.waiting import wait_until


@pytest.fixture
def pop(tmp_path: Path) -> Pop:
    return Pop(tmp_path, "sa")


@pytest.fixture
def worker(pop: Pop) -> Iterator[BridgeWorker]:
    worker = BridgeWorker(pop.bridge)
    yield worker
    worker.close()


def test_an_edit_is_committed_without_being_asked_for(pop: Pop, worker: BridgeWorker) -> None:
    worker.start()
    pop.add("a")
    wait_until(lambda: pop.engine.commits, "the edit")


def test_the_first_round_has_run_when_the_worker_has_started(
    pop: Pop, worker: BridgeWorker
) -> None:
    pop.add("a")
    worker.start()
    assert len(pop.engine.commits) == 1


def test_what_has_come_is_written_when_it_is_woken(pop: Pop, worker: BridgeWorker) -> None:
    other = Pop(pop.path.parent, "us")
    other.add("b")
    other.rounds()
    worker.start()
    pop.engine.hear(other.engine)
    worker.wake()
    wait_until(lambda: pop.ids == {"b"}, "the row")


@pytest.mark.parametrize("error", [EngineError("down"), RuntimeError("a bug")])
def test_a_fault_is_told_and_ends_with_its_cause(
    pop: Pop, worker: BridgeWorker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pop.engine, "changes", fail)
        worker.start()
        wait_until(lambda: worker.fault == str(error), "the fault")
    wait_until(lambda: not worker.fault, "the end of the fault")


def test_it_ends_when_it_is_asked_to(pop: Pop, worker: BridgeWorker) -> None:
    worker.start()
    worker.close()
    pop.add("a")
    assert not worker._thread.is_alive()
    assert pop.engine.commits == []
