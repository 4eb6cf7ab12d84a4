"""Bridges that are killed at random instants over real Corrosions: nothing is lost or repeated.

    EDGEPROXY_TEST_CORROSION=corrosion \\
        python -m tests.cluster.corrosion.conformance.test_deaths --kills 500
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

from tests.cluster.bridge.conformance.test_deaths import NODES, storm, weights
from tests.cluster.corrosion.pops import HEAL_SECS, corrosions, needs_corrosion, stop


class CorrosionEngines:
    """Three Corrosions. A bridge that dies leaves its commit under way."""

    def __init__(self, folder: Path) -> None:
        self._engines = {each.node_id: each for each in corrosions(folder, NODES)}
        self._locks = {node: threading.Lock() for node in NODES}

    def call(self, node: str, method: str, *arguments: object) -> object:
        with self._locks[node]:
            return getattr(self._engines[node], method)(*arguments)

    def committed(self) -> list[tuple[str, str, object]]:
        return weights({node: engine.commits for node, engine in self._engines.items()})

    def stop(self) -> None:
        stop(list(self._engines.values()))


def storm_over_corrosion(folder: Path, kills: int, seed: int) -> str:
    return storm(folder, kills, seed, partial(CorrosionEngines, folder), HEAL_SECS)


@needs_corrosion
def test_bridges_that_are_killed_lose_and_repeat_nothing(tmp_path: Path) -> None:
    storm_over_corrosion(tmp_path, kills=60, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = storm_over_corrosion(Path(folder), options.kills, options.seed)
    sys.stdout.write(f"{told}\n")


if __name__ == "__main__":
    main()
