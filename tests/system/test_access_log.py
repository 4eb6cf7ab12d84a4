"""The access log of a running proxy: one line for each connection, whatever became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, GERMANY, Pop

pytestmark = pytest.mark.system


def test_each_connection_has_its_line(pop: Pop, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_ACCESS_LOG=str(path), EDGEPROXY_DENY=GERMANY)
    assert pop.reached(BRAZIL) == "us-1"
    assert pop.reached(BRAZIL) == "us-1"
    assert pop.reached(GERMANY) == ""
    proxy.stop()

    written = [json.loads(line) for line in path.read_text().splitlines()]
    (denied,) = (each for each in written if each["client"] == GERMANY)
    first, second = (each for each in written if each["client"] == BRAZIL)
    assert (first["client"], first["country"], first["region"]) == (BRAZIL, "BR", "sa")
    assert (first["backend"], first["how"], first["attempts"]) == ("us-1", "failover", 2)
    assert (first["bytes_in"], first["bytes_out"], first["end"]) == (0, 5, "finished")
    assert 0 <= first["dial_secs"] <= first["secs"] < 10
    assert (second["how"], second["attempts"]) == ("bound", 1)
    assert (denied["backend"], denied["end"], denied["country"]) == (None, "denied", "DE")


def test_a_full_disk_costs_lines_and_nothing_else(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ACCESS_LOG="/dev/full")
    for _ in range(3):
        assert pop.reached() == "sa-1"
    proxy.wait_for("access_log_failed")
