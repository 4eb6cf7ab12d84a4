"""What `edgeproxy status` shows of a backend."""

from __future__ import annotations

import pytest

from edgeproxy.cli.running.status import rtt, state_of


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


def test_a_proxy_that_reports_no_state_has_an_unknown_one() -> None:
    assert state_of({"circuit": "closed"}) == "?"


def test_a_backend_that_nobody_has_reached_has_no_rtt() -> None:
    assert [rtt(secs, " ms") for secs in (0.0, 0.00004, 0.25)] == ["-", "0.0 ms", "250.0 ms"]
