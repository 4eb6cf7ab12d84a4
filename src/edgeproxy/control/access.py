"""The access log: one JSON object a line for each connection that is over.

Taking a record never waits. A thread writes them; what it cannot write, because too many wait or
the disk is full, is dropped and counted. A file that was moved away, as log rotation does it, is
made anew.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from edgeproxy.core.record import ConnectionRecord
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog

log = EventLog("access")

STDOUT = "-"
OFF = "off"
BACKLOG = 50_000
BATCH = 1000
STOP_SECS = 2.0
QUIET_SECS = 60.0
"""That it cannot be written is said once in so long."""


class AccessLog:
    """An access log that is open. `take` may be called from one thread.

    Attributes:
        dropped: How many records could not be written.
    """

    def __init__(self, target: str, clock: Callable[[], float] = time.time) -> None:
        """Open it: a path, or `-` for standard output. Raises EdgeProxyError."""
        self.dropped = 0
        self._target = target
        self._clock = clock
        self._fd = -1
        self._told_at = -QUIET_SECS
        self._waiting: SimpleQueue[tuple[float, ConnectionRecord] | None] = SimpleQueue()
        try:
            self._open()
        except OSError as error:
            raise EdgeProxyError(
                f"EDGEPROXY_ACCESS_LOG={target!r} cannot be written: {error.strerror}"
            ) from None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def take(self, record: ConnectionRecord) -> None:
        """Note a connection that is over just now."""
        if self._waiting.qsize() >= BACKLOG:
            self.dropped += 1
        else:
            self._waiting.put((self._clock(), record))

    def close(self) -> None:
        """Write what is waiting, for at most `STOP_SECS`."""
        self._waiting.put(None)
        self._thread.join(STOP_SECS)

    def _open(self) -> None:
        if self._target == STDOUT:
            self._fd = 1
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._target, flags, 0o640)

    def _run(self) -> None:
        over = False
        while not over:
            taken = [self._waiting.get()]
            while not self._waiting.empty() and len(taken) < BATCH:
                taken.append(self._waiting.get())
            records = [each for each in taken if each is not None]
            over = len(records) < len(taken)
            if records:
                self._write(records)

    def _write(self, records: list[tuple[float, ConnectionRecord]]) -> None:
        lines = [line_of(*each) for each in records]
        data = memoryview("".join(lines).encode())
        written = 0
        try:
            self._follow_rotation()
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self.dropped += _unwritten(lines, written)
            self._mend(data, written)
            if time.monotonic() - self._told_at >= QUIET_SECS:
                self._told_at = time.monotonic()
                log.warning("access_log_failed", path=self._target, error=error.strerror)

    def _mend(self, data: memoryview, written: int) -> None:
        """Let no line stand that was written in part."""
        if written and bytes(data[written - 1 : written]) != b"\n" and self._target != STDOUT:
            torn = written - bytes(data[:written]).rfind(b"\n") - 1
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - torn)
            except OSError:
                pass

    def _follow_rotation(self) -> None:
        if self._target == STDOUT:
            return
        held = os.fstat(self._fd)
        try:
            there = Path(self._target).stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            os.close(self._fd)
            self._open()


def line_of(at: float, record: ConnectionRecord) -> str:
    """Return the line for a connection that was over at this time of the clock."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    fields: dict[str, Any] = {"time": f"{stamp}.{int(at % 1 * 1000):03d}Z", **record._asdict()}
    fields["app"] = fields.pop("scope") or None
    fields["dial_secs"] = round(record.dial_secs, 6)
    fields["secs"] = round(record.secs, 6)
    return json.dumps(fields) + "\n"


def _unwritten(lines: list[str], written: int) -> int:
    """Return how many lines are not there in whole after so many bytes."""
    for number, line in enumerate(lines):
        written -= len(line.encode())
        if written < 0:
            return len(lines) - number
    return 0
