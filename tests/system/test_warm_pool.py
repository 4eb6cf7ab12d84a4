"""Connections made in advance, of a running proxy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.clients import rush
from tests.system.pop import Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system

POOL = {"EDGEPROXY_POOL_ENABLED": "true", "EDGEPROXY_POOL_MAX_PER_BACKEND": "4"}
LIMIT = 20


def test_only_the_first_client_waits_for_a_handshake(pop: Pop, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    backend = pop.backend("sa-1")
    proxy = pop.serve(**POOL, EDGEPROXY_ACCESS_LOG=str(path))
    assert backend.total == 0
    assert pop.reached() == "sa-1"
    wait_until(lambda: backend.active == 4, "four connections wait")
    for _ in range(3):
        assert pop.reached() == "sa-1"
    proxy.stop()
    wait_until(lambda: backend.active == 0, "none is left")
    dials = [json.loads(line)["dial_secs"] for line in path.read_text().splitlines()]
    assert dials[0] > 0
    assert dials[1:] == [0, 0, 0]


def test_a_drained_backend_and_one_that_is_removed_are_left_at_once(pop: Pop) -> None:
    disabled, removed = pop.backend("sa-1"), pop.backend("sa-2")
    proxy = pop.serve(**POOL)
    assert {pop.reached(), pop.reached()} == {"sa-1", "sa-2"}
    wait_until(lambda: disabled.active == removed.active == 4, "four wait for each")
    proxy.edit("UPDATE backends SET healthy = 0 WHERE id = 'sa-1'")
    proxy.edit("DELETE FROM backends WHERE id = 'sa-2'")
    wait_until(lambda: disabled.active == removed.active == 0, "nothing waits for either")


def test_a_backend_that_restarts_costs_nobody_anything(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    proxy = pop.serve(**POOL, EDGEPROXY_POOL_CONNECT_TIMEOUT_SECS="0.2")
    for _ in range(3):
        assert pop.reached() == "sa-1"
        wait_until(lambda: backend.active == 4, "four connections wait")
        backend.stop()
        backend.start()
        assert [pop.reached() for _ in range(6)] == ["sa-1"] * 6
    assert not proxy.seen("dial_failed")


def test_a_rush_never_takes_a_backend_beyond_its_hard_limit(pop: Pop) -> None:
    backends = [pop.backend(f"sa-{number}", hard_limit=LIMIT) for number in range(3)]
    proxy = pop.serve(**POOL)
    for _ in range(5):
        sources = [pop.new_address() for _ in range(100)]
        answers = rush(proxy.address, sources)
        assert len([each for each in answers if each]) == 3 * LIMIT
        wait_until(lambda: all(each.active <= 4 for each in backends), "the clients have left")
    assert all(each.most <= LIMIT for each in backends)
