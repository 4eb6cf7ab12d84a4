"""Two thousand histories, the same twice, and the rules whose lack is found soon."""

from __future__ import annotations

import pytest

from tests.sim.rules import RULES, run_without
from tests.sim.world import run

FAST = (
    "next of its origin",
    "seen before adopting",
    "new origin after a clone",
    "new origin after a crash",
    "own after a clone",
    "write anew",
    "say what is dropped",
    "greetings",
    "refutation",
    "outbox",
    "moved",
)


@pytest.mark.parametrize("first", range(0, 2000, 50))
def test_nothing_is_lost_and_nothing_comes_back(first: int) -> None:
    for seed in range(first, first + 50):
        result = run(seed)
        assert not result.fault, (seed, result.fault)


@pytest.mark.parametrize("kind", ["bridges", "files", "members", "replicas"])
def test_a_seed_repeats_its_history(kind: str) -> None:
    one, other = run(7, kind), run(7, kind)
    assert one == other
    assert one.transactions > 0
    assert not one.fault, one.fault


@pytest.mark.parametrize("rule", FAST)
def test_the_lack_of_a_rule_is_found(rule: str) -> None:
    faults = (run_without(rule, "", seed).fault for seed in range(RULES[rule].seeds))
    assert any(faults)
