"""Hostile bytes for every decoder of what peers send.

    ./task fuzz                              # a minute in all
    ./task fuzz -- --secs 600 --seed 7

Exit code 1 if a promise was broken; the input is then printed in hexadecimal. A seed repeats
the inputs.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.fuzzer import FoundError, Report, fuzz
from tests.fuzz.targets import TARGETS, Target


def main() -> int:
    """Fuzz each target; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--secs", type=float, default=60, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for target in TARGETS:
        try:
            _run(target, arguments.secs / len(TARGETS), arguments.seed)
        except FoundError as found:
            print(found, file=sys.stderr)
            return 1
    return 0


def _run(target: Target, secs: float, seed: int) -> None:
    end = time.monotonic() + secs
    _print(fuzz(target, seed, lambda _: time.monotonic() < end), secs)


def _print(report: Report, secs: float) -> None:
    print(
        f"{report.target}: {report.inputs:,} inputs, {report.inputs / secs:,.0f}/s, "
        f"slowest {report.slowest_cpu_secs * 1000:.1f} ms of CPU"
    )
    for text, times in sorted(report.answers.items(), key=lambda pair: -pair[1]):
        print(f"  {times:>10,}  {text}")


if __name__ == "__main__":
    sys.exit(main())
