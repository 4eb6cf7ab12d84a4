"""The answer of `GET /status`: its keys are public."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot
from tests.control.observe.snapshots import NOTHING


def test_a_backend_has_the_public_keys_in_their_order() -> None:
    counters = BackendCounters()
    counters.answered(0.01)
    counters.answered(0.03)
    counters.bytes_in, counters.bytes_out = 100, 200
    row = Backend("sa-1", "app", "sa", "192.0.2.1", 80)
    backend = BackendSnapshot(row, counters, 1, bytes_in=5, bytes_out=7, warm=3)
    (shown,) = json.loads(b"".join(replace(NOTHING, backends=(backend,)).as_json()))["backends"]
    assert list(shown) == [
        *("id", "app", "region", "active", "soft_limit", "hard_limit", "weight", "circuit"),
        *("up", "draining", "bytes_in", "bytes_out", "warm", "connections", "errors", "rtt_secs"),
        *("state", "fault", "last_error", "last_error_secs_ago"),
    ]
    assert (shown["connections"], shown["errors"], shown["warm"]) == (2, 0, 3)
    assert (shown["bytes_in"], shown["bytes_out"]) == (105, 207)
    assert shown["rtt_secs"] == pytest.approx(0.02)
    assert (shown["circuit"], shown["up"], shown["state"]) == ("closed", None, "eligible")
