"""Events are one line each, and nobody waits for who reads them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgeproxy import log
from edgeproxy.log import EventLog, LogSettings, Throttle

events = EventLog("test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Give a stream and stop logging afterwards."""
    yield io.StringIO()
    log.stop()


def test_a_text_line_starts_with_the_event(stream: io.StringIO) -> None:
    log.start(LogSettings(), stream)
    events.info("ready", listen="127.0.0.1:1", note="two words")
    log.stop()
    assert stream.getvalue().startswith(
        'ready listen=127.0.0.1:1 note="two words" level=info time='
    )
    assert stream.getvalue().count("\n") == 1


def test_json_is_one_object_a_line(stream: io.StringIO) -> None:
    log.start(LogSettings(format="json"), stream)
    events.warning("odd", text='a "quote"\n', count=3)
    log.stop()
    event = json.loads(stream.getvalue())
    assert (event["event"], event["text"], event["count"]) == ("odd", 'a "quote"\n', 3)
    assert event["level"] == "warning"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\x1b[31m", "\u2028", "tab\there", ""])
def test_hostile_values_stay_on_their_line(stream: io.StringIO, text: str) -> None:
    log.start(LogSettings(), stream)
    events.info("odd", text=text)
    log.stop()
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().rstrip("\n").isprintable()


def test_debug_lines_only_when_asked_for(stream: io.StringIO) -> None:
    log.start(LogSettings(), stream)
    events.debug("detail")
    log.start(LogSettings(level="debug"), stream)
    events.debug("detail")
    log.stop()
    assert stream.getvalue().count("detail") == 1


def test_a_bug_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    log.start(LogSettings(), stream)
    try:
        raise ValueError("why")
    except ValueError:
        events.bug("failed", client="x")
    log.stop()
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: why" in stream.getvalue()


def test_no_event_waits_for_a_reader_that_never_reads() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "w", 1) as writer:
        log.start(LogSettings(), writer)
        for number in range(log.BACKLOG + 5_000):
            events.info("flood", number=number, padding="x" * 100)
        seen = b""
        while b"log_lines_dropped" not in seen:
            seen = seen[-50:] + reader.read(1 << 16)
        log.stop()


def test_a_value_that_cannot_be_shown_costs_only_itself(stream: io.StringIO) -> None:
    class Shy:
        def __str__(self) -> str:
            raise RuntimeError("no")

    log.start(LogSettings(), stream)
    events.info("odd", value=Shy())
    log.stop()
    assert stream.getvalue().startswith("odd fields=")


def test_lines_stay_whole_on_a_stderr_that_does_not_block() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    program = (
        "from edgeproxy import log\n"
        "log.start(log.LogSettings())\n"
        "for number in range(2000):\n"
        "    log.EventLog('test').info('line', number=number, text='x' * 99)\n"
        "log.stop()\n"
    )
    with os.fdopen(read) as reader:
        with subprocess.Popen([sys.executable, "-c", program], stderr=write) as writing:
            os.close(write)
            lines = reader.read().splitlines()
        assert writing.returncode == 0
    assert [line.split()[1] for line in lines] == [f"number={n}" for n in range(2000)]


@pytest.mark.timeout(30)
def test_a_signal_handler_may_report_while_its_thread_is_reporting(stream: io.StringIO) -> None:
    log.start(LogSettings(), stream)
    told = 0

    def tell(_number: int, _frame: object) -> None:
        nonlocal told
        told += 1
        events.info("signal")

    before = signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        while told < 1000:
            events.info("busy")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    log.stop()
    told_of = {line.split()[0] for line in stream.getvalue().splitlines()}
    assert {"busy", "signal"} <= told_of <= {"busy", "signal", "log_lines_dropped"}


def test_a_throttle_counts_what_it_holds_back() -> None:
    throttle = Throttle(10.0)
    assert [throttle.admit(now) for now in (0.0, 1.0, 9.9, 10.0, 11.0, 20.0)] == [
        0,
        None,
        None,
        2,
        None,
        1,
    ]
