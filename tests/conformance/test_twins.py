"""Both engines, given the same random script at the same time, show the same.

`EDGEPROXY_STORM_SEEDS=500` runs more seeds, `EDGEPROXY_STORM_SEED=7` only that one.
"""

from __future__ import annotations

import time

import pytest

from tests.conformance.actors import Performance, View
from tests.conformance.engines import ENGINES
from tests.conformance.rig import Rig
from tests.conformance.script import Plan, Step
from tests.conformance.storm import seeds
from tests.waiting import PAUSE

STEPS = 60
SETTLE_SECS = 5.0


@pytest.mark.skipif(len(ENGINES) < 2, reason="the native engine is not built here")
@pytest.mark.parametrize("seed", seeds(15))
def test_twins_show_the_same_after_every_step(seed: int) -> None:
    rigs = [Rig(*engine) for engine in ENGINES]
    try:
        twins = [Performance(rig) for rig in rigs]
        script = Plan(seed).draw(STEPS)
        for number, step in enumerate(script):
            for twin in twins:
                twin.play(step)
            _settle(twins, script[: number + 1])
    finally:
        for rig in rigs:
            rig.hang_up()
    for rig in rigs:
        rig.check()


def test_a_seed_always_draws_the_same_script() -> None:
    assert Plan(7).draw(STEPS) == Plan(7).draw(STEPS)
    assert Plan(7).draw(STEPS) != Plan(8).draw(STEPS)


def _settle(twins: list[Performance], played: list[Step]) -> None:
    """Wait until each twin has come to what the last step leads to, and shows the same."""
    step = played[-1]
    end = time.monotonic() + SETTLE_SECS
    while True:
        moved = [twin.pump() for twin in twins]
        missing = [twin.missing(step) for twin in twins]
        if not any(missing):
            views = [twin.view() for twin in twins]
            if views[0] == views[1]:
                return
            missing = _difference(*views)
        assert time.monotonic() < end, f"{missing}\n{_told(twins, played)}"
        if not any(moved):
            PAUSE.wait(0.001)


def _difference(one: View, other: View) -> list[str]:
    return [f"{key}: {one.get(key)} != {other.get(key)}" for key in one if one[key] != other[key]]


def _told(twins: list[Performance], played: list[Step]) -> str:
    """Return what was played, and how the sessions of the last step stand."""
    last = played[-1]
    steps = [
        str(step)
        for step in played
        if not step.prospects or step.prospects.keys() & last.prospects.keys()
    ]
    actors = [
        f"{twin.rig.engine.kind} {twin.actors[number]!r}"
        for twin in twins
        for number in last.prospects
    ]
    return "\n".join([*steps, str(last.prospects), *actors])
