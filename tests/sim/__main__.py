"""Whole clusters in virtual time, a history for each seed, and an oracle of what must come of it.

    ./task sim                            # 2,000 seeds, about a minute on two cores
    ./task sim -- --seeds 100000 --jobs 8
    ./task sim -- --seed 108              # one seed, with its history
    ./task sim -- --without brake         # a rule is taken away: some seed must find that

Exit code 1 if a promise was broken, or if nothing has found the lack of a rule.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

from tests.sim.mix import SHARES
from tests.sim.rules import RULES, run_without
from tests.sim.world import Result

SEEDS = 2_000


def main() -> int:
    """Run the histories; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--seeds", type=int, help=f"how many ({SEEDS})")
    parser.add_argument("--first", type=int, default=0, help="the first one (%(default)s)")
    parser.add_argument("--seed", type=int, help="this one, with its history")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kind", choices=sorted(SHARES), default="", help="only of this kind")
    parser.add_argument("--without", choices=sorted(RULES), default="", help="take a rule away")
    parser.add_argument("-v", action="store_true", help="print the history of a fault")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set must not depend on the process
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], environment)
    if given.seed is not None:
        result = run_without(given.without, given.kind, given.seed)
        print(*result.history, sep="\n")
        print(result.fault or f"at rest after {result.rest_secs:.0f} s, as it must be")
        return bool(result.fault)
    seeds = given.seeds or (RULES[given.without].seeds if given.without else SEEDS)
    found = _look_at(given, range(given.first, given.first + seeds))
    return found == 0 if given.without else min(found, 1)


def _look_at(given: argparse.Namespace, seeds: range) -> int:
    """Run seeds; return how many faults were found."""
    began_at = time.monotonic()
    kinds: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    found = transactions = 0
    for result in _results(partial(run_without, given.without, given.kind), seeds, given.jobs):
        kinds[result.kind] += 1
        steps += result.steps
        excused += result.excused
        transactions += result.transactions
        if result.fault:
            found += 1
            print(f"seed {result.seed} ({result.kind}): {result.fault}", flush=True)
            if given.v:
                print(*result.history, sep="\n", flush=True)
            if given.without:
                break
    print(f"{kinds.total():,} seeds in {time.monotonic() - began_at:.0f} s: {found} faults")
    for name, counts in (("kinds", kinds), ("steps", steps), ("excused transactions", excused)):
        print(
            f"  {name}: " + ", ".join(f"{count:,} {each}" for each, count in sorted(counts.items()))
        )
    print(f"  transactions: {transactions:,}")
    return found


def _results(one: partial[Result], seeds: range, jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(one, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=8)


if __name__ == "__main__":
    sys.exit(main())
