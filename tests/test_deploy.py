"""What is delivered for deployment asks for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.control.observe.metrics_page import Exposition
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.counters import BackendCounters
from edgeproxy.core.routing.backend_snapshot import BackendSnapshot
from tests.control.observe.snapshots import NOTHING

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "edgeproxy.json"
BACKEND = BackendSnapshot(Backend("sa-1", "app", "sa", "192.0.2.1", 80), BackendCounters(), up=True)
READING = replace(
    NOTHING,
    refused={"full": 1},
    closed={"finished": 1},
    dial_failures={"refused": 1},
    connections_by_app={"": 1},
    refused_by_app={"web": {"full": 1}},
    certificates=(0, 1e9),
    backends=(BACKEND,),
)


def exposed() -> set[str]:
    """Return the names of all samples."""
    text = b"".join(Exposition(lambda: READING).render()).decode()
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}


def asked(text: str) -> set[str]:
    """Return the names of metrics in expressions."""
    return set(re.findall(r"\b(?:edgeproxy|process)_[a-z_]+\b", text))


def test_alerts_ask_for_what_there_is() -> None:
    assert asked(ALERTS.read_text()) <= exposed()


def test_the_dashboard_asks_for_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    assert len(expressions) > 15
    assert asked(" ".join(expressions)) <= exposed()


def test_the_documents_name_every_metric() -> None:
    documented = asked((ROOT / "docs" / "observability.md").read_text())
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()}
    assert {name for name in bare if name.startswith("edgeproxy_")} <= documented


def test_promtool_accepts_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: ./task packages")
    done = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
