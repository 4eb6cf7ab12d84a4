"""The metrics of replication are there with it, and say what the agent said."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.control.observe.cluster_metrics import CLUSTER_METRICS
from edgeproxy.control.observe.status_snapshot import StatusSnapshot, Surroundings

MEMBER: dict[str, Any] = {
    "node_id": "us",
    "state": "dead",
    "is_connected": False,
    "rtt_ms": 120.0,
    "clock_offset_ms": None,
    "missing_here": 3,
    "missing_there": None,
}
AGENT: dict[str, Any] = {
    "node_id": "sa",
    "ready": True,
    "agent_restarts": 2,
    "bridge": {"edits": 7, "rows": 8, "fault": "x", "rows_braked": 40, "rows_refused": 1},
    "members": [MEMBER, MEMBER | {"node_id": "eu", "state": "alive"}],
    "counters": {"pushes": 5},
    "refused": {"unknown_key": 4},
    "gossip_dropped": {},
}


def read(agent: dict[str, Any] | None) -> dict[str, dict[tuple[str, ...], object]]:
    """Return the samples of each metric that is on the page."""
    now = StatusSnapshot.__new__(StatusSnapshot)
    object.__setattr__(now, "surroundings", Surroundings(cluster=agent))
    found = {
        metric.name.removeprefix("edgeproxy_cluster_"): metric.read(now)
        for metric in CLUSTER_METRICS
    }
    return {name: dict(samples) for name, samples in found.items() if samples is not None}


def test_without_replication_there_are_none() -> None:
    assert read(None) == {}


def test_without_an_answer_it_is_said_that_there_is_none() -> None:
    assert read({"agent_restarts": 1, "ready": False}) == {
        "agent_up": {(): False},
        "agent_restarts": {(): 1},
    }


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("agent_up", {(): True}),
        ("ready", {(): True}),
        ("stalled", {(): True}),
        ("members", {("alive",): 1, ("suspect",): 0, ("dead",): 1, ("left",): 0}),
        ("peer_rtt_seconds", {("us",): 0.12, ("eu",): 0.12}),
        ("peer_clock_offset_seconds", {}),
        ("missing_transactions", {("us", "here"): 3, ("eu", "here"): 3}),
        ("edits", {(): 7}),
        ("rows_restored", {(): 40}),
        ("events", {("pushes",): 5}),
        ("refused", {("unknown_key",): 4}),
        ("gossip_dropped", {}),
    ],
)
def test_what_the_agent_said_is_on_the_page(
    name: str, samples: dict[tuple[str, ...], object]
) -> None:
    assert read(AGENT)[name] == samples
