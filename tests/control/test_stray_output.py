"""Nothing that a stranger can cause fills the log, and all of it is lines of the log."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from edgeproxy.control.stray_output import MAX_KINDS, QUIET_SECS, StrayOutput


def test_a_fault_that_repeats_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    stray = StrayOutput(lambda: now)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(stray.loop_fault)
    fault = {"message": "socket.accept() out of system resource", "exception": OSError(24, "full")}
    for _ in range(10_000):
        loop.call_exception_handler(fault)
    assert [each.getMessage() for each in caplog.records] == ["internal_fault"]
    now = QUIET_SECS
    loop.call_exception_handler(fault)
    told = [vars(each)["fields"] for each in caplog.records]
    assert told[0] == {"message": fault["message"], "error": "OSError(24, 'full')"}
    assert told[1]["suppressed"] == 9_999
    loop.close()


def test_faults_without_end_that_all_differ_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    stray = StrayOutput(lambda: 0.0)
    for number in range(MAX_KINDS * 10):
        stray.handle(logging.makeLogRecord({"msg": f"fault {number}"}))
    assert len(caplog.records) == MAX_KINDS + 1


PROGRAM = """
import asyncio, logging, sys, threading, warnings
from edgeproxy import log
from edgeproxy.control.stray_output import StrayOutput

class Faulty:
    def __del__(self):
        raise RuntimeError("in a destructor")

def fail():
    raise RuntimeError("in a thread")

async def main():
    asyncio.get_running_loop().set_exception_handler(stray.loop_fault)
    asyncio.get_running_loop().call_soon(fail)
    logging.getLogger("asyncio").warning("of a library")
    logging.getLogger("asyncio.sslproto").error("of a part of a library")
    warnings.warn("a warning")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Faulty()

log.start(log.LogSettings("json"))
stray = StrayOutput()
stray.adopt()
asyncio.run(main())
log.stop()
"""


def test_whatever_python_would_print_is_a_line_of_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert all(line.startswith('{"event": "internal_fault"') for line in lines), done.stderr
    for text in ("in a destructor", "in a thread", "a library", "a part of a", "a warning"):
        assert text in done.stderr
    assert len(lines) == 6, "the fault of a callback is the sixth"
