"""`./task bench` measures real proxies and writes what it found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.engine.choice import native_engine

ROOT = Path(__file__).parents[2]
TOOLS = ("wrk", "iperf3", "nginx", "haproxy")


def compare(samples: Path, *options: str) -> tuple[list[dict[str, Any]], str]:
    """Run `bench.compare` for a round; return the samples that it writes, and what it prints."""
    for tool in TOOLS:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: ./task packages")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "bench.compare", "--rounds", "1", "--secs", "1"),
            *("--json", str(samples), *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(samples.read_text())["samples"], ran.stdout


@pytest.mark.system
def test_a_short_run_measures_every_proxy_and_writes_it_down(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    samples, _ = compare(
        tmp_path / "samples.json",
        *("--only", "connect-64,download-1,idle-1000"),
        *("--proxies", "portable,haproxy,nginx,direct"),
        *("--write", str(document)),
    )
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
def test_guards_are_measured_beside_none_and_refuse_no_client(tmp_path: Path) -> None:
    if native_engine() is None:
        pytest.skip("the native engine is not built here")
    samples, printed = compare(
        tmp_path / "samples.json",
        *("--guards", "--only", "connect-64", "--proxies", "edgeproxy,edgeproxy+all"),
    )
    assert [sample["subject"] for sample in samples] == ["edgeproxy", "edgeproxy+all"]
    assert "| proxy | cpu_us / edgeproxy |" in printed
