"""A long computation often lets others run on a quiet host, and is not starved on a busy one."""

from __future__ import annotations

import pytest

from edgeproxy.control.cpu_yield import MAX_CREDIT_SECS, MAX_NAP_RATIO, CpuYield

STEP_SECS = 0.000_1


class Host:
    """A host on which a step and a yield take so long."""

    def __init__(self, yield_secs: float) -> None:
        self.now = 1000.0
        self.yields = 0
        self._yield_secs = yield_secs

    def give_way(self) -> None:
        self.yields += 1
        self.now += self._yield_secs

    def compute(self, steps: int) -> float:
        """Return how long so many steps take with a rest after each."""
        rest, began_at = CpuYield(lambda: self.now, self.give_way), self.now
        for _ in range(steps):
            self.now += STEP_SECS
            rest()
        return self.now - began_at


@pytest.mark.parametrize("yield_secs", [0.000_001, 0.000_1])
def test_a_host_without_other_programs_yields_at_every_step(yield_secs: float) -> None:
    host = Host(yield_secs)
    host.compute(1000)
    assert host.yields == 1000


@pytest.mark.parametrize("yield_secs", [0.003, 0.1])
def test_beside_other_programs_half_of_the_time_is_for_the_computation(yield_secs: float) -> None:
    steps = 10_000
    host = Host(yield_secs)
    computed_secs = steps * STEP_SECS
    took_secs = host.compute(steps)
    most_secs = computed_secs * (1 + MAX_NAP_RATIO) + MAX_CREDIT_SECS + yield_secs
    assert computed_secs * MAX_NAP_RATIO <= took_secs <= most_secs


def test_after_a_long_pause_a_yield_is_due_at_once() -> None:
    host = Host(0.1)
    rest = CpuYield(lambda: host.now, host.give_way)
    rest()
    rest()
    assert host.yields == 1
    host.now += 1.0
    rest()
    assert host.yields == 2
