"""Short searches: each rule is needed, and with all of them nothing goes wrong."""

from __future__ import annotations

import pytest

from edgeproxy.core.cluster import messages
from edgeproxy.core.cluster.own_copy import OwnCopy
from edgeproxy.core.cluster.replica import Replica
from tests.model.broken import BOUNDS, RULES
from tests.model.search import search
from tests.model.world import Bounds, first_world

STEADY = (0,)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_something_goes_wrong(rule: str) -> None:
    found = search(first_world(BOUNDS[rule], RULES[rule]), lambda states: states > 10_000)
    assert found.fault, found


@pytest.mark.parametrize(
    ("bounds", "is_small"),
    [
        (Bounds(nodes=2, writes=2), True),
        (Bounds(nodes=2, writes=2, rows=2, answers=1, jumps_ms=STEADY), True),
        (Bounds(begin="away", writes=1, answers=1, jumps_ms=STEADY), True),
        (Bounds(begin="known", writes=1, answers=1), True),
        (Bounds(begin="known", writes=2), False),
        (Bounds(writes=3), False),
        (Bounds(begin="away", writes=2, resets=2), False),
    ],
)
def test_with_all_rules_nothing_goes_wrong(bounds: Bounds, is_small: bool) -> None:
    found = search(first_world(bounds, (Replica, OwnCopy)), lambda states: states > 8_000)
    assert not found.fault, found
    assert found.is_exhausted == is_small


def test_nothing_goes_wrong_between_the_parts_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "CHUNK_BYTES", 1)
    bounds = Bounds(begin="away", writes=1, answers=1, rows=2, jumps_ms=STEADY)
    found = search(first_world(bounds, (Replica, OwnCopy)), lambda states: states > 8_000)
    assert not found.fault, found
