"""What `edgeproxy cluster` prints."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cli import main
from edgeproxy.cli.cluster import for_people
from edgeproxy.cli.running.status import cluster_line

MEMBER: dict[str, Any] = {
    "node_id": "pop-us",
    "state": "alive",
    "region": "us",
    "address": "10.50.0.2:4001",
    "rtt_ms": 120.4,
    "clock_offset_ms": -3.2,
    "missing_here": 0,
    "missing_there": 2,
}
STATUS: dict[str, Any] = {
    "node_id": "pop-sa",
    "cluster": "edgeproxy",
    "engine": "builtin",
    "ready": True,
    "bridge": {"edits": 3, "rows": 4, "fault": "", "rows_braked": 0, "rows_refused": 0},
    "members": [MEMBER],
    "warnings": [],
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPROXY_CONFIG", "")


def test_a_status_names_the_pop_its_cluster_and_its_members() -> None:
    lines = "\n".join(for_people(STATUS))
    assert "pop-sa in cluster edgeproxy (builtin), ready" in lines
    assert "pop-us  alive  us      10.50.0.2:4001  120 ms  -3 ms" in lines


def test_what_is_wrong_stands_out() -> None:
    bridge = STATUS["bridge"] | {"fault": "disk full", "rows_braked": 40, "rows_refused": 1}
    lines = "\n".join(for_people(STATUS | {"ready": False, "bridge": bridge, "warnings": ["no"]}))
    for text in (
        "NOT READY",
        "STALLED: disk full",
        "40 rows",
        "1 rows are refused",
        "WARNING   no",
    ):
        assert text in lines


def test_unknown_values_are_dashes() -> None:
    nothing = dict.fromkeys(("rtt_ms", "clock_offset_ms", "missing_here", "missing_there"))
    assert "\n".join(for_people(STATUS | {"members": [MEMBER | nothing]})).count(" -") == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "pop-sa in edgeproxy, 2 of 2 POPs up"),
        (
            {"members": [MEMBER | {"state": "dead"}]},
            "pop-sa in edgeproxy, 1 of 2 POPs up; pop-us dead",
        ),
        ({"members": [MEMBER | {"state": "left"}]}, "pop-sa in edgeproxy, 1 of 1 POPs up"),
        ({"members": [MEMBER | {"missing_here": 5}]}, "up; 5 transactions behind"),
        ({"ready": False}, "up; NOT READY"),
    ],
)
def test_one_line_says_how_the_cluster_is(changes: dict[str, Any], expected: str) -> None:
    assert cluster_line(STATUS | changes).endswith(expected)


def test_an_agent_without_an_answer_is_told_of() -> None:
    assert cluster_line({"ready": False}).startswith("NO ANSWER")


def test_keygen_prints_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "keygen"]) == 0
    assert len(base64.b64decode(capsys.readouterr().out)) == 32


def test_without_an_agent_it_is_said_how_to_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "status"]) == 1
    assert "EDGEPROXY_REPLICATION_ENABLED=true" in capsys.readouterr().err


def test_an_agent_without_replication_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "agent"]) == 1
    assert "replication is off" in capsys.readouterr().err


def test_a_wrong_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "join", "a b"]) == 2
    assert "allowed are addresses" in capsys.readouterr().err
