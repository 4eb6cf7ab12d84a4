"""Measures edgeproxy beside HAProxy, nginx and Envoy, in alternating rounds on this machine.

    ./task bench                                   # everything; about 25 minutes
    ./task bench -- --rounds 3 --only connect-64   # one measure
    ./task bench -- --guards                       # the price of each guard; about 16 minutes
    ./task bench -- --list                         # what there is
    ./task bench -- --write docs/performance.md    # also put the tables there

The proxy has one CPU to itself, load and backends another, where there are two. Everything
that is measured runs on a loopback of its own, is started here and is stopped here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench import guards, load
from bench.figures import Bench
from bench.measure import MEASURES, Measure
from bench.network import enter_own_loopback
from bench.process import split_cpus
from bench.report import PLAIN, REFERENCE, Report, Sample
from bench.subjects import Subject, all_subjects

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> int:
    """Measure, print, and write what was asked for."""
    arguments = _arguments()
    known = guards.guarded_subjects() if arguments.guards else all_subjects()
    subjects = _choose(known, arguments.proxies)
    measures = _wanted(arguments.only or (guards.MEASURES if arguments.guards else ""))
    if arguments.list:
        for measure in MEASURES:
            print(f"{measure.name:14}{measure.about}")
        return 0
    if missing := load.missing_tools():
        for name, hint in missing.items():
            print(f"{name} is needed, for load: {hint}", file=sys.stderr)
        return 2
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    network = enter_own_loopback()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-") as folder:
        bench = _bench(Path(folder), arguments.secs)
        for number in range(arguments.rounds):
            for measure in measures:
                samples += _round(bench, measure, subjects, number)
    report = Report(samples, PLAIN if arguments.guards else REFERENCE)
    machine = _machine(bench, subjects, arguments, network)
    text = "\n".join(
        [
            *(f"* {line}" for line in machine),
            "",
            report.targets(),
            report.tables({measure.name: measure.about for measure in measures}),
        ]
    )
    print(text)
    if arguments.json:
        found = {"machine": machine, "samples": [asdict(sample) for sample in samples]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.write:
        _write(arguments.write, text)
    wanted = sum(measure.takes(each.name) for measure in measures for each in subjects)
    return 0 if len(samples) == wanted * arguments.rounds else 1


def _arguments() -> argparse.Namespace:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="bench", description=lines[0])
    parser.add_argument("--rounds", type=int, default=5, help="how many (5)")
    parser.add_argument("--secs", type=float, default=2, help="length of a sample (2)")
    parser.add_argument("--only", default="", help="measures, or how they begin, with commas")
    parser.add_argument("--proxies", default="", help="names, with commas between; default: all")
    parser.add_argument("--guards", action="store_true", help="edgeproxy with and without guards")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--write", type=Path, help="put the tables into this document")
    parser.add_argument("--list", action="store_true", help="show the measures and stop")
    return parser.parse_args()


def _choose(subjects: list[Subject], names: str) -> list[Subject]:
    """Return the proxies that are wanted and here; say what the others need."""
    chosen = []
    wanted = set(filter(None, names.split(",")))
    if unknown := wanted - {subject.name for subject in subjects}:
        known = ", ".join(subject.name for subject in subjects)
        raise SystemExit(f"bench: no proxy {', '.join(sorted(unknown))}; there are {known}")
    for subject in subjects:
        if wanted and subject.name not in wanted:
            continue
        if subject.missing:
            print(f"{subject.name} is left out: {subject.missing}", file=sys.stderr)
        else:
            chosen.append(subject)
    return chosen


def _wanted(names: str) -> list[Measure]:
    """Return the measures with these names, or whose names begin so."""
    known = [measure.name for measure in MEASURES]
    wanted: set[str] = set()
    for name in filter(None, names.split(",")):
        found = [name] if name in known else [each for each in known if each.startswith(name)]
        if not found:
            raise SystemExit(f"bench: no measure {name}; there are {', '.join(known)}")
        wanted.update(found)
    return [measure for measure in MEASURES if not wanted or measure.name in wanted]


def _bench(folder: Path, secs: float) -> Bench:
    return Bench(*split_cpus(), folder, secs)


def _round(bench: Bench, measure: Measure, subjects: list[Subject], number: int) -> list[Sample]:
    """Take one sample of each proxy, each round beginning with another one."""
    taking = [each for each in subjects if measure.takes(each.name)]
    if not taking:
        return []
    samples = []
    for subject in taking[number % len(taking) :] + taking[: number % len(taking)]:
        try:
            figures = measure.sample(bench, subject)
        except Exception as error:  # noqa: BLE001 — one sample is not worth all the others
            print(
                f"round {number} {measure.name} {subject.name}: no sample: {error!r}",
                file=sys.stderr,
            )
            continue
        samples.append(Sample(measure.name, subject.name, number, figures))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"round {number} {measure.name} {subject.name}: {shown}", file=sys.stderr)
    return samples


def _machine(
    bench: Bench, subjects: list[Subject], arguments: argparse.Namespace, network: str
) -> list[str]:
    """Return what the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":")[1].strip() for line in info.splitlines() if "model name" in line]
    cpus = len(os.sched_getaffinity(0))
    pinned = f"proxy on CPU {bench.proxy_cpus}, load and backends on CPU {bench.load_cpus}"
    return [
        f"{time.strftime('%Y-%m-%d')}, {cpus} CPUs ({models[0] if models else '?'}); {pinned}",
        f"Linux {platform.release()}, Python {platform.python_version()}; {network}",
        "; ".join(dict.fromkeys(subject.version for subject in subjects if subject.version)),
        f"{arguments.rounds} rounds, {arguments.secs:g} s a sample",
    ]


def _write(file: Path, text: str) -> None:
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
