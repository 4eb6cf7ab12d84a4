"""What the documents show as output is what the program prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.store.editing import DOCUMENTED_TABLE, execute
from tests.system.proxy import RunningProxy, run_edgeproxy

pytestmark = pytest.mark.system

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NODES = """\
INSERT INTO backends VALUES
    ('sa-node-1', 'myapp', 'sa', '10.50.1.1', 8080, 1, 2, 50, 100, 0),
    ('us-node-1', 'myapp', 'us', '10.50.2.1', 8080, 1, 2, 50, 100, 0),
    ('eu-node-1', 'myapp', 'eu', '10.50.3.1', 8080, 1, 2, 50, 100, 0);
"""
EU_NODE_2 = """\
UPDATE backends SET healthy = 0 WHERE id = 'eu-node-1';
INSERT INTO backends VALUES
    ('eu-node-2', 'myapp', 'eu', '10.50.3.2', 8080, 1, 0, 100, 200, 0);
"""
COUNTRIES = """\
ALTER TABLE backends ADD COLUMN country TEXT;
UPDATE backends SET healthy = 1, country = 'FR' WHERE id = 'eu-node-1';
UPDATE backends SET weight = 3, country = 'DE' WHERE id = 'eu-node-2';
"""


def test_explain_prints_what_the_page_on_routing_shows(tmp_path: Path) -> None:
    shown = [each for each in BLOCK.findall((DOCS / "routing.md").read_text()) if "tier" in each]
    command, _, shown[0] = shown[0].partition("\n")
    for sample, edit in zip(shown, (DOCUMENTED_TABLE + NODES, EU_NODE_2, COUNTRIES), strict=True):
        execute(tmp_path / "routing.db", edit)
        words = command.removeprefix("$ edgeproxy ").split()
        printed = run_edgeproxy(*words, folder=tmp_path)
        assert sample in printed.stdout


def test_the_log_has_the_fields_that_the_page_on_operations_shows(tmp_path: Path) -> None:
    shown = {
        line.split()[0]: line
        for block in BLOCK.findall((DOCS / "operations.md").read_text())
        for line in block.splitlines()
        if " level=" in line
    }
    assert {"ready", "signal", "draining", "stopped"} <= set(shown)
    with RunningProxy(tmp_path, {}) as proxy:
        proxy.wait_until_ready()
        proxy.stop()
    for event in set(shown) & {each["event"] for each in proxy.events}:
        fields = [each.split("=")[0] for each in shown[event].split()[1:]]
        (line,) = proxy.seen(event)
        assert sorted(fields) == sorted(line.keys() - {"event"}), event
