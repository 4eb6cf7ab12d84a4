"""A mixed storm against a real proxy: nothing lost, nothing mixed up, nothing kept.

    ./task storm                                     # ten minutes in all, on every engine
    ./task storm -- --secs 20 --engine native --seed 7
    ./task storm -- --secs 1200 --flapping           # guards on, backends that flap

Clients ping-pong, transfer bulk, half-close, reset, leave early and stall, while nodes are
disabled, removed, weighed and restored, backends go away and come back, the database is
damaged and repaired, and SIGHUPs arrive. Every byte that comes back is compared with what
was sent. One node is never touched, so nobody may be refused. At the end the proxy is asked
to stop during open transfers, which must come to their ends.

With `--flapping`, all backends but one go down and come back all the time, each in its own
rhythm, in every way that new connections can fail; every guard is on. Whoever is cut before a
byte has come must have been reset by its own backend, or something is wrong.

Exit code 1 if anything was wrong. Seeds repeat what is chosen, not when it happens.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from pathlib import Path

from bench.storm.report import print_table
from bench.storm.storm import Storm
from edgeproxy.engine.choice import native_engine


def main() -> int:
    """Run a storm on each engine; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.storm", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--secs", type=float, default=600, help="in all (%(default)s)")
    parser.add_argument("--engine", choices=("native", "portable"), help="both by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flapping", action="store_true", help="backends flap, guards are on")
    arguments = parser.parse_args()
    engines = [arguments.engine] if arguments.engine else ["portable", "native"]
    if "native" in engines and native_engine() is None:
        print("the native engine is not built here", file=sys.stderr)
        if arguments.engine:
            return 2
        engines.remove("native")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reports = []
    for engine in engines:
        secs = arguments.secs / len(engines)
        print(f"{engine}: {secs:g} s, seed {arguments.seed}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            storm = Storm(
                Path(folder), engine, secs, arguments.seed, is_flapping=arguments.flapping
            )
            reports.append(asyncio.run(storm.run()))
    print_table(reports)
    return 0 if all(report.is_good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
