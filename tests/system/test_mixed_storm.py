"""Short storms, mixed and of flapping backends, against each engine: see bench/storm/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.engine.choice import native_engine

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SECS = 8
FLAPPING_SECS = 6


@pytest.mark.parametrize("engine", ["portable", "native"])
def test_nothing_is_lost_mixed_up_or_kept_in_a_mixed_storm(engine: str) -> None:
    _rage(engine, SECS)


@pytest.mark.parametrize("engine", ["portable", "native"])
def test_nobody_is_refused_while_all_backends_but_one_flap_and_all_guards_are_on(
    engine: str,
) -> None:
    _rage(engine, FLAPPING_SECS, "--flapping")


def _rage(engine: str, secs: float, *options: str) -> None:
    if engine == "native" and native_engine() is None:
        pytest.skip("the native engine is not built here")
    storm = subprocess.run(
        [sys.executable, "-m", "bench.storm", "--secs", str(secs), "--engine", engine, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=secs + 90,
        check=False,
    )
    assert storm.returncode == 0, storm.stdout + storm.stderr
    assert "all well" in storm.stdout
