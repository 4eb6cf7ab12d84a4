"""`edgeproxy demo --pops N` as people run it: what it shows, and that nothing is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.system.running_demo import RunningDemo

pytestmark = pytest.mark.system


def test_pops_keep_one_table_and_nothing_is_left(demo: RunningDemo) -> None:
    demo.start("--pops", "3")
    err = demo.end()
    assert (demo.process.returncode, err) == (0, ""), demo.seen
    demo.expect_nothing_left()
    rows = [" ".join(re.sub(r"\d\.\d\d s", "T", line).split()) for line in demo.seen.splitlines()]
    for row in (
        "pop-1 sa T sa-node-1 us-node-1 eu-node-1",
        "pop-3 eu T sa-node-1 us-node-1 eu-node-1",
        "pop-1 sa T sa-node-2",
        "pop-3 eu T sa-node-2",
        "pop-1 sa us-node-1 eu-node-2",
        "pop-3 eu us-node-2 eu-node-1",
        "pop-2 us T",
        "✓ all tables are equal, with the edits of both sides: eu-node-1 is disabled,",
    ):
        assert row in rows, demo.seen
    assert "✗" not in demo.seen
    ours = [line for line in demo.seen.splitlines() if "/" not in line]  # paths may be long
    assert max(map(len, ours)) <= 80


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("backends run", signal.SIGINT),
        ("are connected", signal.SIGTERM),
        ("noticed", signal.SIGINT),
        ("kill -KILL", signal.SIGHUP),
    ],
)
def test_nothing_is_left_when_it_is_interrupted(
    demo: RunningDemo, moment: str, number: int
) -> None:
    demo.start("--pops", "2")
    demo.read_until(moment)
    demo.signal(number)
    demo.expect_ended_by(number)


def test_without_the_sqlite3_program_edits_are_made_with_python(demo: RunningDemo) -> None:
    demo.start("--pops", "2", PATH="/nonexistent")
    demo.read_until("in force at all POPs")
    assert "$ python3 -c 'import sqlite3" in demo.seen
    assert "$ sqlite3" not in demo.seen
    demo.signal(signal.SIGINT)
    demo.expect_ended_by(signal.SIGINT)


def test_it_fails_when_a_proxy_dies_under_it(demo: RunningDemo) -> None:
    demo.start("--pops", "2")
    demo.read_until("are connected")
    demo.kill_proxy()
    demo.end()
    assert demo.process.returncode == 1, demo.seen
    assert "✗" in demo.seen
    demo.expect_nothing_left()


@pytest.mark.parametrize("words", [("--pops", "1"), ("--pops", "10"), ("--pops", "2", "--keep")])
def test_what_it_cannot_show_is_refused(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeproxy", "demo", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--pops" in done.stderr
