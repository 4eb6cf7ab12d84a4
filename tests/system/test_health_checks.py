"""Probes, tried on a running proxy: who is down gets no clients, who comes back does."""

from __future__ import annotations

import pytest

from tests.store.editing import sqlite3_command
from tests.system.pop import Pop
from tests.waiting import wait_until

pytestmark = pytest.mark.system

QUICK = {
    "EDGEPROXY_HEALTH_CHECK_ENABLED": "true",
    "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS": "0.2",
    "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "0.2",
}


def test_a_dead_backend_goes_down_before_a_client_meets_it(pop: Pop) -> None:
    backend = pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(**QUICK)
    down = proxy.wait_for("backend_down", backend="sa-1")
    assert down["fault"] == "connection refused"
    assert [pop.reached() for _ in range(5)] == ["us-1"] * 5

    backend.start()
    proxy.wait_for("backend_up", backend="sa-1")
    wait_until(lambda: pop.reached() == "sa-1", "the nearer one")
    assert proxy.stop()["failovers"] == "0"


def test_a_hung_backend_delays_no_other_verdict(pop: Pop) -> None:
    for number in range(5):
        pop.hung_backend(f"hung-{number}")
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        **{**QUICK, "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "60"},
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    proxy.wait_for("backend_down", backend="dead")


def test_the_operators_column_is_never_written(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(**QUICK)
    proxy.wait_for("backend_down", backend="sa-1")
    assert sqlite3_command(pop.database, "SELECT healthy FROM backends").split() == ["1", "1"]


def test_where_all_are_called_down_all_are_tried(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy = pop.serve(
        **QUICK, EDGEPROXY_HEALTH_CHECK_TYPE="exec", EDGEPROXY_HEALTH_CHECK_COMMAND="false"
    )
    proxy.wait_for("backend_down", backend="sa-1")
    proxy.wait_for("backend_down", backend="us-1")
    assert pop.reached() == "sa-1"


def test_without_panic_nobody_is_tried_where_all_are_down(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(
        **QUICK,
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND="false",
        EDGEPROXY_HEALTH_PANIC="false",
    )
    proxy.wait_for("backend_down", backend="sa-1")
    wait_until(lambda: pop.reached() == "", "the verdict to count")
    proxy.wait_for("client_refused", reason="down")


def test_a_backend_that_is_moved_is_judged_anew(pop: Pop) -> None:
    pop.dead_backend("sa-1")
    alive = pop.backend("spare", "us")
    proxy = pop.serve(**QUICK)
    proxy.wait_for("backend_down", backend="sa-1")
    proxy.edit(f"UPDATE backends SET wg_ip = '{alive.host}', port = {alive.port} WHERE id = 'sa-1'")
    wait_until(lambda: pop.reached() == "spare", "the new address")
