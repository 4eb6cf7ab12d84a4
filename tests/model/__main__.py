"""Searches from the command line: `python -m tests.model --help`."""

from __future__ import annotations

import argparse
import time

from edgeproxy.core.cluster import messages
from edgeproxy.core.cluster.own_copy import OwnCopy
from edgeproxy.core.cluster.replica import Replica
from tests.model.broken import BOUNDS, RULES
from tests.model.search import search
from tests.model.world import Bounds, first_world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--secs", type=float, default=60.0)
    parser.add_argument(
        "--without", choices=sorted(RULES), help="take a rule away; sets all bounds"
    )
    parser.add_argument("--parts", action="store_true", help="one cell in each part of an answer")
    parser.add_argument("--steady", action="store_true", help="no clock jumps")
    for name, default in Bounds()._asdict().items():
        if isinstance(default, int):
            parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--begin", choices=("nothing", "known", "away"), default="nothing")
    given = parser.parse_args()
    if given.parts:
        messages.CHUNK_BYTES = 1
    kinds = RULES[given.without] if given.without else (Replica, OwnCopy)
    names = [name for name in Bounds._fields if hasattr(given, name)]
    bounds = Bounds(**{name: getattr(given, name) for name in names})
    if given.steady:
        bounds = bounds._replace(jumps_ms=(0,))
    if given.without:
        bounds = BOUNDS[given.without]
    began_at = time.monotonic()
    found = search(first_world(bounds, kinds), lambda _: time.monotonic() - began_at > given.secs)
    secs = time.monotonic() - began_at
    end = "all states" if found.is_exhausted else "a part of the states"
    print(f"{end}: {found.states} to depth {found.depth} in {secs:.0f} s")
    if not found.fault:
        return 0
    print(f"FAULT: {found.fault}")
    for action in found.actions:
        print(*action)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
