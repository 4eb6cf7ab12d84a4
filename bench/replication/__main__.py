"""Measures whole POPs that share a routing table: real proxies and agents in namespaces.

    sudo ./task bench-replication                          # all sections, with 3 POPs
    sudo ./task bench-replication -- edits crash --pops 10
    sudo ./task bench-replication -- partition --partition-secs 300

Every run prints its own command line. A figure that misses its target says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.replication.costs import measure_idle, measure_latency, measure_tables
from bench.replication.edits import measure_edits
from bench.replication.faults import (
    measure_accusations,
    measure_crashes,
    measure_partitions,
    measure_writer,
)
from bench.replication.figures import Bench
from bench.replication.serf import measure_serf

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "edits": measure_edits,
    "partition": measure_partitions,
    "writer": measure_writer,
    "crash": measure_crashes,
    "serf": measure_serf,
    "accusations": measure_accusations,
    "tables": measure_tables,
    "idle": measure_idle,
    "latency": measure_latency,
}


def main() -> int:
    """Measure what is named; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replication", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--pops", type=int, nargs="+", default=[3], help="(3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--partition-secs", type=float, nargs="+", default=[5.0, 20.0, 60.0])
    parser.add_argument("--watch-secs", type=float, default=120.0, help="for false accusations")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if os.geteuid() != 0:
        print("only root can make networks of its own", file=sys.stderr)
        return 2
    print("python -m bench.replication", *sys.argv[1:])
    for pops in arguments.pops:
        for name in arguments.sections or SECTIONS:
            print(f"{name}, {pops} POPs", flush=True)
            began_at = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                SECTIONS[name](
                    Bench(
                        Path(folder),
                        pops,
                        arguments.quick,
                        arguments.partition_secs,
                        arguments.watch_secs,
                    )
                )
            load = os.getloadavg()[0]
            print(f"  ({time.monotonic() - began_at:.0f} s, load {load:.1f})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
