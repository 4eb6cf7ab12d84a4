"""What `edgeproxy status` shows of a backend."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeproxy.cli.running.status import for_people, rtt, state_of
from edgeproxy.control.observe.status_snapshot import ListenerSnapshot, StatusSnapshot, Surroundings
from tests.control.observe.snapshots import NOTHING


@pytest.mark.parametrize(
    ("state", "circuit", "shown"),
    [
        ("eligible", "closed", "eligible"),
        ("eligible", "half_open", "circuit half open"),
        ("circuit open", "half_open", "circuit half open"),
        ("circuit open", "open", "circuit open"),
        ("draining", "half_open", "draining"),
    ],
)
def test_one_state_is_shown(state: str, circuit: str, shown: str) -> None:
    assert state_of({"state": state, "circuit": circuit}) == shown


@pytest.mark.parametrize(
    ("backend", "shown"),
    [
        ({"state": "failed lately", "last_error": "refused"}, "failed lately: refused 99 s ago"),
        ({"state": "circuit open", "last_error": "timeout"}, "circuit open: timeout 99 s ago"),
        ({"state": "eligible", "last_error": "refused"}, "eligible"),
        (
            {"state": "eligible", "last_error": "reset", "last_error_secs_ago": 3.2},
            "eligible: reset 3 s ago",
        ),
        (
            {"state": "eligible", "circuit": "half_open", "last_error": "refused"},
            "circuit half open: refused 99 s ago",
        ),
        ({"state": "down", "fault": "HTTP 503", "last_error": "refused"}, "down: HTTP 503"),
        ({"state": "down", "fault": "x" * 999}, f"down: {'x' * 60}"),
        ({"state": "draining", "fault": "refused", "last_error": "refused"}, "draining"),
        ({"state": "full", "last_error": "refused"}, "full"),
    ],
)
def test_a_state_is_shown_with_its_cause(backend: dict[str, object], shown: str) -> None:
    assert state_of({"circuit": "closed", "last_error_secs_ago": 99.0, **backend}) == shown


def answered(snapshot: StatusSnapshot) -> dict[str, object]:
    """Return what the control socket says of this."""
    status: dict[str, object] = json.loads(b"".join(snapshot.as_json()))
    return status


def test_the_text_hides_nothing_of_what_the_proxy_stands_on() -> None:
    around = Surroundings(
        "/var/lib/routing.db",
        "is not a database",
        ("bad", "row 7"),
        12,
        (
            ListenerSnapshot("0.0.0.0:80", "*", ""),
            ListenerSnapshot("0.0.0.0:443", "tls:web", "cannot listen"),
        ),
        "/etc/edgeproxy.toml",
        "/run/control",
        "/var/log/access.log",
        None,
        "127.0.0.1:8090",
    )
    shown = for_people(answered(replace(NOTHING, surroundings=around))).splitlines()
    assert shown[2:12] == [
        "database  /var/lib/routing.db: UNREADABLE",
        "          is not a database",
        "          rows skipped: 12 (bad, row 7, …)",
        "listeners 0.0.0.0:80 (*)",
        "          0.0.0.0:443 (tls:web): FAILED",
        "          cannot listen",
        "config    /etc/edgeproxy.toml",
        "control   /run/control",
        "log       /var/log/access.log",
        "api       127.0.0.1:8090",
    ]


def test_the_process_is_shown() -> None:
    status = answered(replace(NOTHING, pid=4711, uptime_secs=5.0))
    assert status["pid"] == 4711
    assert "up        5 s, pid 4711" in for_people(status).splitlines()


def test_what_an_older_proxy_does_not_report_is_left_out() -> None:
    status = answered(NOTHING)
    del status["surroundings"], status["pid"]
    shown = for_people(status)
    assert "database" not in shown
    assert "pid" not in shown


def test_a_proxy_that_reports_no_state_has_an_unknown_one() -> None:
    assert state_of({"circuit": "closed"}) == "?"


def test_a_backend_that_nobody_has_reached_has_no_rtt() -> None:
    assert [rtt(secs, " ms") for secs in (0.0, 0.00004, 0.25)] == ["-", "0.0 ms", "250.0 ms"]
