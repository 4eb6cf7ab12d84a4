"""How far a node trusts itself."""

from __future__ import annotations

from edgeproxy.core.cluster.swim.probing.local_health import LocalHealth


def test_it_stays_between_its_bounds() -> None:
    health = LocalHealth()
    health.better()
    assert (health.score, health.factor()) == (0, 1)
    for _ in range(20):
        health.worse()
    assert (health.score, health.factor()) == (8, 9)
    health.better()
    assert health.score == 7
