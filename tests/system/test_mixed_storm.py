"""A short storm of everything at once, against each engine: see bench/storm/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.engine.choice import native_engine

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SECS = 20


@pytest.mark.parametrize("engine", ["portable", "native"])
def test_nothing_is_lost_mixed_up_or_kept_in_a_mixed_storm(engine: str) -> None:
    if engine == "native" and native_engine() is None:
        pytest.skip("the native engine is not built here")
    storm = subprocess.run(
        [sys.executable, "-m", "bench.storm", "--secs", str(SECS), "--engine", engine],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECS + 90,
        check=False,
    )
    assert storm.returncode == 0, storm.stdout + storm.stderr
    assert "all well" in storm.stdout
