"""Which steps of a member are told."""

from __future__ import annotations

import pytest

from edgeproxy.core.cluster.swim.events import EventKind, kinds_of
from edgeproxy.core.cluster.swim.records import State
from tests.core.cluster.swim.simulation import record_of

UP, SUSPECTED, REFUTED = EventKind.UP, EventKind.SUSPECTED, EventKind.REFUTED


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (None, State.ALIVE, [UP]),
        (None, State.SUSPECT, [UP, SUSPECTED]),
        (None, State.DEAD, []),
        (None, State.LEFT, []),
        (State.ALIVE, State.ALIVE, []),
        (State.ALIVE, State.SUSPECT, [SUSPECTED]),
        (State.SUSPECT, State.SUSPECT, []),
        (State.SUSPECT, State.ALIVE, [REFUTED]),
        (State.SUSPECT, State.DEAD, [EventKind.DEAD]),
        (State.DEAD, State.DEAD, []),
        (State.DEAD, State.ALIVE, [UP]),
        (State.DEAD, State.SUSPECT, [UP, SUSPECTED]),
        (State.DEAD, State.LEFT, []),
        (State.ALIVE, State.LEFT, [EventKind.LEFT]),
        (State.LEFT, State.ALIVE, [UP]),
    ],
)
def test_a_step_is_told_once(before: State | None, after: State, kinds: list[EventKind]) -> None:
    earlier = None if before is None else record_of(1).as_state(before)
    assert kinds_of(earlier, record_of(1).as_state(after)) == kinds


@pytest.mark.parametrize("before", list(State))
def test_a_new_start_is_told_as_up_whatever_was_before(before: State) -> None:
    earlier = record_of(1, instance=1).as_state(before)
    assert kinds_of(earlier, record_of(1, instance=2)) == [UP]
