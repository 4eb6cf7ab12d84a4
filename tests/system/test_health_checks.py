"""Probes, tried on a running proxy: who is down gets no clients, who comes back does."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.control.test_children import child_of, in_namespace
from tests.store.editing import sqlite3_command
from tests.system.pop import Pop
from tests.system.proxy import SERVE
from tests.waiting import wait_until

pytestmark = pytest.mark.system

QUICK = {
    "EDGEPROXY_HEALTH_CHECK_ENABLED": "true",
    "EDGEPROXY_HEALTH_CHECK_INTERVAL_SECS": "0.2",
    "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "0.2",
}

PATIENT = {**QUICK, "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "20"}


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
    began = time.monotonic()
    proxy = pop.serve(
        **{**QUICK, "EDGEPROXY_HEALTH_CHECK_TIMEOUT_SECS": "10"},
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    proxy.wait_for("backend_down", backend="dead")
    assert time.monotonic() - began < 8


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


# -- commands ---------------------------------------------------------------------------------


def test_exit_codes_count_though_who_started_the_proxy_ignored_them(pop: Pop) -> None:
    pop.backend("sa-1")
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    proxy = pop.serve_with(
        (sys.executable, "-c", f"{ignore} os.execv(sys.argv[1], sys.argv[1:])", *SERVE),
        None,
        **PATIENT,
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND="sh -c 'exit 7'",
    )
    assert proxy.wait_for("backend_down")["fault"] == "the command ended with 7"


CHECK = """
test "$EDGEPROXY_API_TOKEN" || (setsid sh -c 'echo $$ >> FOLDER/orphans; sleep 0.2' &)
test -s FOLDER/orphans || sleep 0.2
exit ${EDGEPROXY_CHECK_ID#sa-}
"""
"""A check that leaves a process behind, and whose exit code is the number of its backend."""


def test_process_1_reaps_what_commands_leave_behind(pop: Pop) -> None:
    """And takes no exit code for that of another command."""
    script = pop.folder / "check"
    script.write_text(CHECK.replace("FOLDER", str(pop.folder)))
    for number in range(4):
        pop.backend(f"sa-{number}")
    proxy = pop.serve_with(
        (*in_namespace(), *SERVE),
        None,
        **PATIENT,
        EDGEPROXY_API_TOKEN="secret",
        EDGEPROXY_HEALTH_CHECK_TYPE="exec",
        EDGEPROXY_HEALTH_CHECK_COMMAND=f"sh {script}",
        EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD="1",
    )
    process_1 = child_of(proxy.pid)
    try:
        orphans = pop.folder / "orphans"
        wait_until(
            lambda: orphans.exists() and len(orphans.read_text().split()) >= 20, "orphans", 120.0
        )
        proc = Path(f"/proc/{process_1}/root/proc")
        left = orphans.read_text().split()
        wait_until(lambda: not any((proc / each).exists() for each in left), "them to be reaped")
        for number in range(1, 4):
            down = proxy.wait_for("backend_down", backend=f"sa-{number}")
            assert down["fault"] == f"the command ended with {number}"
        assert not proxy.seen("backend_down", backend="sa-0")
    finally:
        os.kill(process_1, signal.SIGTERM)  # `unshare` does not pass it on
    proxy.last_words()
