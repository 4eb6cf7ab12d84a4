"""A thread for one thing after another, which the end never waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from functools import partial

import pytest

from edgeproxy.control.background_thread import BackgroundThread

DEADLINE_SECS = 20.0


class Thing:
    pass


def test_functions_run_in_order_and_one_that_fails_stops_no_other() -> None:
    thread, ran = BackgroundThread("test"), []

    def fail() -> None:
        raise ValueError("as asked")

    first = thread.submit(lambda: ran.append(1))
    failed = thread.submit(fail)
    last = thread.submit(lambda: ran.append(2))
    last.result(DEADLINE_SECS)
    assert first.done()
    assert isinstance(failed.exception(), ValueError)
    assert ran == [1, 2]
    assert thread.close(DEADLINE_SECS)


def test_what_was_submitted_is_done_before_it_ends_and_nothing_after_is_taken() -> None:
    thread, go, ran = BackgroundThread("test"), threading.Event(), []
    thread.submit(go.wait)
    thread.submit(lambda: ran.append(1))
    assert not thread.close(0)
    go.set()
    assert thread.close(DEADLINE_SECS)
    assert ran == [1]
    with pytest.raises(RuntimeError, match="has ended"):
        thread.submit(int)


def test_one_that_was_never_used_has_ended() -> None:
    assert BackgroundThread("test").close(0)


def test_it_keeps_nothing_of_what_it_has_done() -> None:
    thread, thing = BackgroundThread("test"), Thing()
    kept = weakref.ref(thing)
    thread.submit(partial(isinstance, thing, Thing)).result(DEADLINE_SECS)
    thread.submit(int).result(DEADLINE_SECS)
    del thing
    assert kept() is None
    thread.close(DEADLINE_SECS)


def test_a_process_ends_while_it_hangs() -> None:
    code = (
        "import threading\n"
        "from edgeproxy.control.background_thread import BackgroundThread\n"
        "thread, begun = BackgroundThread('test'), threading.Event()\n"
        "thread.submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
        "print(thread.close(0.01))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECS,
        check=True,
    )
    assert done.stdout == "False\n"
