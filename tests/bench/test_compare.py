"""`./task bench` measures real proxies and writes what it found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.engine.choice import native_engine

ROOT = Path(__file__).parents[2]
TOOLS = ("wrk", "iperf3", "nginx", "haproxy")


@pytest.mark.system
def test_a_short_run_measures_every_proxy_and_writes_it_down(tmp_path: Path) -> None:
    for tool in TOOLS:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: ./task packages")
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench.compare", "--rounds", "1", "--secs", "1"),
            *("--only", "connect-64,download-1,idle-1000"),
            *("--proxies", "portable,haproxy,nginx,direct"),
            *("--json", str(tmp_path / "samples.json"), "--write", str(document)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    took = {(sample["measure"], sample["subject"]) for sample in samples}
    proxies = {"portable", "haproxy", "nginx"}
    assert took == {
        *(
            (measure, proxy)
            for measure in ("connect-64", "download-1", "idle-1000")
            for proxy in proxies
        ),
        ("connect-64", "direct"),
    }
    for sample in samples:
        main = next(
            name for name in ("cpu_us", "cpu_ms_per_gb", "mb_per_1000") if name in sample["figures"]
        )
        assert sample["figures"][main] > 0 or sample["subject"] == "direct"
    written = document.read_text()
    assert written.startswith("before\n<!-- measured: begin -->\n* ")
    assert written.endswith("<!-- measured: end -->\nafter\n")
    assert "old" not in written
    assert "| portable |" in written


@pytest.mark.system
def test_guards_are_measured_beside_none_and_turn_nobody_away(tmp_path: Path) -> None:
    for tool in TOOLS:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: ./task packages")
    if native_engine() is None:
        pytest.skip("the native engine is not built here")
    found = tmp_path / "samples.json"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench.compare", "--guards", "--rounds", "1", "--secs", "1"),
            *("--only", "connect-64", "--proxies", "edgeproxy,edgeproxy+all"),
            *("--json", str(found)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    samples = json.loads(found.read_text())["samples"]
    assert [sample["subject"] for sample in samples] == ["edgeproxy", "edgeproxy+all"]
    assert "| proxy | cpu_us / edgeproxy |" in ran.stdout
