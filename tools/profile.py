"""Shows where a proxy under load spends its time: `python -m tools.profile`.

    --load NAME      connections: each request on a connection of its own (default)
                     messages: requests on connections that stay open
    --clients COUNT  how many clients there are at a time (default 64)
    --secs SECS      how long each look takes (default 5)
    --threads COUNT  how many byte threads the proxy has (default 1)
    --top COUNT      how many functions are shown of each place (default 12)
    --flame FILE     write a flame graph of the gate thread, too (SVG)

It starts a real `edgeproxy serve` on loopback and looks at it with perf, which knows the
kernel, our extension and the interpreter, and with py-spy, which knows Python's functions.
Where there are two CPUs, the proxy has one to itself. Needs wrk, nginx and perf.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.load import endless, small_backend
from bench.process import split_cpus
from bench.subjects import Subject, edgeproxy

LOADS = ("connections", "messages")
PLACES = ("kernel", "extension", "interpreter", "libraries")
SYSTEM_CALL = re.compile(r"__(?:x64|arm64|do|se)_sys_(\w+)")
FRAME = re.compile(r"^\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$")
MANGLING = re.compile(r"__pyx_[a-z]+_9edgeproxy_6engine_6native_\d+")
RATE = 499
"""Samples a second: no round figure, which could beat with a timer of the proxy."""
INSTALL = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx",
    "perf": "apt-get install linux-perf (on Ubuntu: linux-tools-generic)",
    "py-spy": "pip install py-spy",
}


@dataclass
class Profile:
    """Samples that perf took.

    Attributes:
        samples: How many there are.
        threads: How many of each thread's name and place.
        functions: How many of each place and function.
        calls: How many of those in the kernel belong to each system call.
    """

    samples: int
    threads: Counter[tuple[str, str]]
    functions: Counter[tuple[str, str]]
    calls: Counter[str]


def place_of(library: str) -> str:
    """Return which of PLACES a file of code belongs to."""
    name = library.rpartition("/")[2]
    if library.startswith("[") and library != "[vdso]":
        return "kernel"
    if "/edgeproxy/engine/native/" in library:
        return "extension"
    if re.match(r"(lib)?python", name) or ".cpython-" in name:
        return "interpreter"
    return "libraries"


def read_profile(lines: Iterable[str], process: int) -> Profile:
    """Read what `perf script -F comm,tid,ip,sym,dso` writes: a thread, then its stack."""
    profile = Profile(0, Counter(), Counter(), Counter())
    thread, place, is_told = "", "", False
    for line in lines:
        if not line.strip():
            thread = ""
        elif not thread:
            name, _, number = line.strip().rpartition(" ")
            thread = "main" if int(number) == process else name.strip()
            place, is_told = "", False
        elif frame := FRAME.match(line):
            name, library = frame[1], frame[2]
            if not place:
                place = place_of(library)
                profile.samples += 1
                profile.threads[thread, place] += 1
                profile.functions[place, MANGLING.sub("", name)] += 1
            if place == "kernel" and not is_told and (call := SYSTEM_CALL.search(name)):
                profile.calls[call[1]] += 1
                is_told = True
    return profile


def show(profile: Profile, secs: int, top: int) -> None:
    """Print the shares of threads and places, then the functions of each place."""
    share = 100 / max(profile.samples, 1)
    busy = 100 * profile.samples / RATE / secs
    print(f"\n{profile.samples} samples, {busy:.0f} % of a CPU; all figures are per cent of them\n")
    print(f"{'thread':<16}{'all':>8}" + "".join(f"{place:>13}" for place in PLACES))
    for thread in ("", *sorted({thread for thread, _ in profile.threads})):
        of_place = [
            share
            * sum(n for (t, p), n in profile.threads.items() if p == place and thread in ("", t))
            for place in PLACES
        ]
        figures = "".join(f"{n:>13.1f}" for n in of_place)
        print(f"{thread or 'all threads':<16}{sum(of_place):>8.1f}{figures}")
    _show_top("kernel, by system call", profile.calls, share, top)
    for place in PLACES:
        functions = Counter({n: c for (p, n), c in profile.functions.items() if p == place})
        _show_top(place, functions, share, top)


def _show_top(title: str, counts: Counter[str], share: float, top: int) -> None:
    print(f"\n{title}")
    for name, count in counts.most_common(top):
        print(f"{count * share:8.1f}  {name}")


def show_python(folded: str, top: int) -> None:
    """Print what py-spy's folded stacks say: the functions that held the interpreter lock."""
    own, below = Counter[str](), Counter[str]()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r"(?<=\()\S*/", "", frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    held = sum(own.values())
    print(f"\nPython's functions, per cent of {held} samples with the interpreter lock held")
    print("(what Thread.run does by itself is the native engine)")
    print(f"{'own':>8}{'with callees':>14}")
    for name, times in own.most_common(top):
        print(f"{100 * times / held:8.1f}{100 * below[name] / held:14.1f}  {name}")


@contextmanager
def loaded_proxy(folder: Path, load: str, *, clients: int, threads: int) -> Iterator[int]:
    """Give the process id of a proxy under one of `LOADS`; print what the clients saw at last."""
    own, others = split_cpus()
    proxy = Subject("edgeproxy", edgeproxy("native"))
    with (
        small_backend(others, folder) as backend,
        proxy.running(backend, own, folder, threads=threads) as (process, port),
        endless(port, others, folder, connections=clients, close=load == "connections") as seen,
    ):
        yield process.pid
    print("\nload: " + "; ".join(re.findall(r"Requests/sec.*|\d+ requests in.*", seen())))


def _look_with_perf(process: int, secs: int, folder: Path) -> Profile:
    data = str(folder / "perf.data")
    _look(f"perf record -q -g -F {RATE} -p {process} -o", data, "--", "sleep", str(secs))
    with subprocess.Popen(
        ["perf", "script", "-i", data, "-F", "comm,tid,ip,sym,dso"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it has much to say about what it cannot resolve
        text=True,
    ) as script:
        assert script.stdout is not None
        return read_profile(script.stdout, process)


def _look_with_py_spy(process: int, secs: int, to: Path, *options: str) -> None:
    _look(f"py-spy record -p {process} -d {secs} -r {RATE} -o", str(to), *options)


def _look(command: str, *words: str) -> None:
    """Run a profiler; end with what it says if it cannot look."""
    done = subprocess.run(
        [*command.split(), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": _search_path()},
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"profile: {command} … failed; it may need root, or a lower "
            f"kernel.perf_event_paranoid:\n{done.stderr}"
        )


def _search_path() -> str:
    """Return where programs are looked for: first beside this Python."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


def _missing(wanted: tuple[str, ...]) -> list[str]:
    return [
        f"{name}: {INSTALL[name]}" for name in wanted if not shutil.which(name, path=_search_path())
    ]


def main() -> int:
    """Run the proxy under load, look at it, print what was seen."""
    parser = argparse.ArgumentParser(
        prog="profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, kind, default in (("clients", int, 64), ("secs", int, 5), ("threads", int, 1)):
        parser.add_argument(f"--{option}", type=kind, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--top", type=int, default=12, help=argparse.SUPPRESS)
    parser.add_argument("--flame", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", choices=LOADS, default=LOADS[0], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if missing := _missing(("wrk", "nginx", "perf")):
        raise SystemExit("profile: not here; " + "; ".join(missing))
    without_py_spy = _missing(("py-spy",))
    with (
        TemporaryDirectory() as name,
        loaded_proxy(
            Path(name), asked.load, clients=asked.clients, threads=asked.threads
        ) as process,
    ):
        folder = Path(name)
        profile = _look_with_perf(process, asked.secs, folder)
        folded = folder / "folded"
        if not without_py_spy:
            _look_with_py_spy(process, asked.secs, folded, "-f", "raw", "--gil", "-F")
            if asked.flame:
                _look_with_py_spy(process, asked.secs, asked.flame, "--native", "-t")
        show(profile, asked.secs, asked.top)
        if not without_py_spy:
            show_python(folded.read_text(), asked.top)
    if without_py_spy:
        print(f"\nPython's functions are not shown; {without_py_spy[0]}")
        return 1 if asked.flame else 0
    if asked.flame:
        print(f"\nflame graph: {asked.flame}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
