"""Checks the memory safety of the native engine: `python -m tools.sanitize`.

    --quick          only the address check, with few storms: below 90 s
    --no-valgrind    do without valgrind
    --only NAME      one of the checks below; may be repeated
    --seeds COUNT    how many random storms there are in the address check (default 200)
    TEST …           run these tests instead, as pytest names them

Each check builds the extension in its own way, in a copy of the sources, and runs over it the
tests that every engine has to pass:

    address   AddressSanitizer and UndefinedBehaviorSanitizer, which end at the first finding
    thread    ThreadSanitizer. The interpreter is not instrumented, so only those reports count
              in which our code takes part; `thread.supp` says which are by design
    valgrind  memcheck on a few tests: bad accesses in or below our code, and memory that our
              code has allocated and lost

The exit code is 0 if every check ran, every test passed and nothing was found, otherwise 1.
What was said stays in build/sanitize/NAME/.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tools.instrumented import TREE, Build, UnusableError, copy_sources, pytest_command

ADDRESS = Build("address", ("-fsanitize=address,undefined",), ("libasan.so", "libubsan.so"))
THREAD = Build("thread", ("-fsanitize=thread",), ("libtsan.so",))
VALGRIND = Build("valgrind")

SUITE = ("tests/conformance",)
FEW_TESTS = tuple(
    f"tests/conformance/test_{name}.py"
    for name in ("relay", "half_close", "resets", "random_actions")
)
QUICK = (*SUITE, "--ignore=tests/conformance/test_timeouts.py")  # which is mostly waiting
SEEDS = 200
FEW_SEEDS = 10
QUICK_SEEDS = 5
VALGRIND_SEEDS = 2
BY_DESIGN = Path(__file__).with_name("thread.supp")
MOST_LINES = 120
"""Of one finding, and of what failing tests say; the files have all of it."""

OURS = re.compile(r"/engine/native/(?:[a-z_]+/)?[a-z_]+\.cpython-[^/ ]*\.so")
MANGLING = re.compile(r"__pyx_[a-z]+_9edgeproxy_6engine_6native_(?:\d+[a-z_]+_)?\d+")
OPTIONS = argparse.RawDescriptionHelpFormatter


@dataclass(frozen=True)
class Finding:
    """What a sanitizer says. The same fault has the same `summary` each time."""

    summary: str
    text: str


@dataclass(frozen=True)
class Check:
    """One way to look: a build, how tests are run on it, and how its reports are read.

    Attributes:
        build: Its name is the check's.
        environ: What the sanitizer reads.
        findings: Reads what was said.
        tests: What is run.
        before: What the tests are run by.
    """

    build: Build
    environ: dict[str, str]
    findings: Callable[[], Iterator[Finding]]
    tests: tuple[str, ...] = SUITE
    before: tuple[str, ...] = ()

    def passes(self, tests: list[str], seeds: int) -> bool:
        """Build, run, tell. Return whether all is well. Raises UnusableError."""
        began = time.monotonic()
        name, said, told = self.build.name, self.build.said, self.build.told
        self.build.make()
        built = time.monotonic()
        with told.open("w") as output, said.open("w") as errors:
            code = subprocess.run(
                [*self.before, *pytest_command(*(tests or self.tests))],
                cwd=TREE,
                env=self.build.environment(EDGEPROXY_STORM_SEEDS=str(seeds), **self.environ),
                stdout=output,
                stderr=errors,
                check=False,
            ).returncode
        lines = told.read_text(errors="replace").splitlines() or ["pytest said nothing"]
        found = list(self.findings())
        if code:
            print("\n".join(lines[-MOST_LINES:]))
            print(f"{name}: pytest ended with {code}; all of it: {told}, {said}")
        texts = {each.summary: each.text for each in reversed(found)}
        for summary, count in Counter(each.summary for each in found).items():
            print(f"\n{name}: {summary} ({count} times)\n")
            print("\n".join(texts[summary].splitlines()[:MOST_LINES]), flush=True)
        print(
            f"{name}: {len(texts) or 'no'} finding{'s' * (len(texts) != 1)}; {lines[-1]}; "
            f"built in {built - began:.0f} s, run in {time.monotonic() - built:.0f} s",
            flush=True,
        )
        return not code and not found


def address_findings() -> Iterator[Finding]:
    """Yield the report that ended the tests, if one did."""
    text = ADDRESS.said.read_text(errors="replace")
    if summary := re.search(r"\S+ runtime error: .*|SUMMARY: .*", text):
        yield Finding(summary[0], text[max(text.find("=" * 18), 0) :])


def thread_findings() -> Iterator[Finding]:
    """Yield the reports in which our code takes part, named by who met whom."""
    for text in THREAD.said.read_text(errors="replace").split("=" * 18 + "\n"):
        if "WARNING: ThreadSanitizer" in text and OURS.search(text):
            kind = re.search(r"ThreadSanitizer: (.*?) \(", text)
            places = re.findall(
                r"^  (?=\S)(.*?) (?:of size|at) .*:\n    #0 (\S+)", text, re.MULTILINE
            )
            met = (f"{what.lower()} in {MANGLING.sub('', where)}" for what, where in places[:2])
            yield Finding(f"{kind[1] if kind else 'report'}: {', '.join(met)}", text)


def valgrind_findings() -> Iterator[Finding]:
    """Yield the errors that are ours."""
    for report in VALGRIND.folder.glob("report.*"):
        for error in ET.parse(report).iter("error"):
            if _is_ours(error):
                yield _told_by_valgrind(error)


def _is_ours(error: ET.Element) -> bool:
    """Whether our code did it: an access in or below it, or the loss of what it allocated."""
    objects = [frame.findtext("obj", "") for frame in error.iterfind("stack[1]/frame")]
    if error.findtext("kind", "").startswith("Leak_"):
        objects = objects[1:2]  # who called malloc
    return any(OURS.search(name) for name in objects)


def _told_by_valgrind(error: ET.Element) -> Finding:
    what = error.findtext("what") or error.findtext("xwhat/text") or "?"
    lines = [what]
    for part in error:
        if part.tag == "auxwhat":
            lines.append(f"  {part.text}")
        for frame in part.iterfind("frame"):
            name, place = frame.findtext("fn", "?"), frame.findtext("file", frame.findtext("obj"))
            lines.append(f"    {name} ({place}:{frame.findtext('line', '?')})")
    own = next((line for line in lines if MANGLING.search(line)), "").strip()
    return Finding(f"{error.findtext('kind')} {MANGLING.sub('', own)}", "\n".join(lines))


CHECKS = {
    "address": Check(
        ADDRESS,
        {
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            # The sanitizer then knows of each object, not only of the pools they are in.
            "PYTHONMALLOC": "malloc",
        },
        address_findings,
    ),
    "thread": Check(
        THREAD,
        {"TSAN_OPTIONS": f"exitcode=0:history_size=4:suppressions={BY_DESIGN}"},
        thread_findings,
    ),
    "valgrind": Check(
        VALGRIND,
        {"PYTHONMALLOC": "malloc"},
        valgrind_findings,
        FEW_TESTS,
        (
            *("valgrind", "--quiet", "--fair-sched=yes", "--num-callers=24"),
            *("--leak-check=full", "--show-leak-kinds=definite"),
            *("--xml=yes", f"--xml-file={VALGRIND.folder}/report.%p"),
        ),
    ),
}


def main() -> int:
    """Run the checks that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="sanitize", description=__doc__, formatter_class=OPTIONS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-valgrind", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=CHECKS, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=argparse.SUPPRESS)
    parser.add_argument("tests", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.only or (["address"] if asked.quick else list(CHECKS))
    if asked.no_valgrind and "valgrind" in names:
        names.remove("valgrind")
    tests = asked.tests or (list(QUICK) if asked.quick else [])
    seeds = {
        "address": QUICK_SEEDS if asked.quick else asked.seeds,
        "thread": FEW_SEEDS,
        "valgrind": VALGRIND_SEEDS,
    }
    copy_sources()
    failed = []
    for name in names:
        try:
            if name == "valgrind" and shutil.which("valgrind") is None:
                raise UnusableError(
                    "not here; on Debian and Ubuntu: apt-get install valgrind "
                    "(--no-valgrind does without)"
                )
            if not CHECKS[name].passes(tests, seeds[name]):
                failed.append(name)
        except UnusableError as error:
            print(f"{name}: NOT RUN: {error}", flush=True)
            failed.append(name)
    print(f"sanitize: {'failed: ' + ', '.join(failed) if failed else 'all is well'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
