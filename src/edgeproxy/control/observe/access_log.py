"""The access log: one line with a JSON object for each connection that has ended.

`take` never waits and wakes no thread: a thread writes the collected records every tenth of a
second. Records that cannot be written, because too many wait or the disk is full, are dropped and
counted. A file that log rotation has moved away is created again; if that fails, the old file stays
in use. A descriptor is closed only after another one has replaced it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from edgeproxy.core.admission.record import ConnectionRecord
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog

log = EventLog("access")

STDOUT = "-"
OFF = "off"
BACKLOG = 50_000
GATHER_SECS = 0.1
STOP_SECS = 2.0
READER_SECS = 1.0
"""How long to wait for the reader of a full FIFO."""
QUIET_SECS = 60.0
"""Seconds between two warnings that the log cannot be written."""


class AccessLog:
    """An open access log. Call `take` from one thread only.

    Attributes:
        dropped: Number of records that could not be written.
    """

    def __init__(
        self, target: str, pop_region: str, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the log at a path, or `-` for standard output. Raises EdgeProxyError.

        Every line says that it is of a POP in `pop_region`.
        """
        self.dropped = 0
        self._target = target
        self._pop_region = pop_region
        self._clock = clock
        self._told_at = -QUIET_SECS
        self._waiting: deque[tuple[float, ConnectionRecord]] = deque()
        self._closing = threading.Event()
        try:
            self._fd = _opened(target)
        except OSError as error:
            raise EdgeProxyError(
                f"EDGEPROXY_ACCESS_LOG={target!r} cannot be written: {_reason(target, error)}"
            ) from None
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def take(self, record: ConnectionRecord) -> None:
        """Record a connection that has just ended."""
        if len(self._waiting) >= BACKLOG:
            self.dropped += 1
        else:
            self._waiting.append((self._clock(), record))

    def close(self) -> None:
        """Write the waiting records, for at most `STOP_SECS`."""
        self._closing.set()
        self._thread.join(STOP_SECS)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._closing.wait(GATHER_SECS)
            records = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if records:
                self._write(records)

    def _write(self, records: list[tuple[float, ConnectionRecord]]) -> None:
        lines = [line_of(*record, self._pop_region) for record in records]
        written = 0
        try:
            self._follow_rotation()
            for block in _blocks(lines):
                rest = memoryview(block)
                while rest:
                    taken = self._put(rest)
                    written += taken
                    rest = rest[taken:]
        except OSError as error:
            whole, torn = _in_whole(lines, written)
            self.dropped += len(lines) - whole
            self._mend(torn)
            self._tell(error)

    def _put(self, data: memoryview) -> int:
        """Write as much as fits; give a slow reader READER_SECS to catch up. Raises OSError."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._fd, select.POLLOUT)
            room.poll(READER_SECS * 1000)
            return os.write(self._fd, data)

    def _tell(self, error: OSError) -> None:
        if time.monotonic() - self._told_at >= QUIET_SECS:
            self._told_at = time.monotonic()
            log.warning("access_log_failed", path=self._target, error=error.strerror)

    def _mend(self, torn: int) -> None:
        """Remove a line that was written in part."""
        if torn and self._target != STDOUT:
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - torn)
            except OSError:
                pass

    def _follow_rotation(self) -> None:
        """Open the path again if it no longer names the open file.

        If it cannot be opened, the old file stays in use as long as it has a name somewhere. Raises
        OSError if it has been deleted.
        """
        if self._target == STDOUT:
            return
        held = os.fstat(self._fd)
        with suppress(OSError):
            if os.path.samestat(held, os.stat(self._target)):
                return
        try:
            opened = _opened(self._target)
        except OSError as error:
            if not held.st_nlink:
                raise
            self._tell(error)
            return
        # Close it only now: the number of a closed descriptor goes to the next client.
        os.close(self._fd)
        self._fd = opened


def line_of(at: float, record: ConnectionRecord, pop_region: str) -> bytes:
    """Return the line, in ASCII, for a connection that ended at this Unix time.

    The order of fields is public: new ones come last.
    """
    from msgspec.json import encode  # only where there is an access log

    first, inbound = record.first_byte_secs, record.inbound
    fields = {
        "time": f"{_stamp(int(at))}.{int(at % 1 * 1000):03d}Z",
        "client": record.client,
        "country": record.country,
        "region": record.region,
        "backend": record.backend,
        "how": record.how,
        "attempts": record.attempts,
        "dial_secs": round(record.dial_secs, 6),
        "secs": round(record.secs, 6),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "end": record.end,
        "id": record.id,
        "app": record.scope or None,
        "ended_by": record.ended_by,
        "first_byte_secs": first if first is None else round(first, 6),
        "backend_app": record.backend_app,
        "backend_region": record.backend_region,
        "pop_region": pop_region,
        "listener": inbound.listener if inbound else None,
        "client_port": inbound.port or None if inbound else None,
        "server_name": inbound.server_name if inbound else None,
        "alpn": inbound.alpn if inbound else None,
        "tls": inbound.tls if inbound else None,
    }
    try:
        line = encode(fields)
        if line.isascii():
            return line + b"\n"
    except UnicodeEncodeError:
        pass
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


@lru_cache(2)
def _stamp(secs: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(secs))


def _opened(target: str) -> int:
    """Return a descriptor to write to; never wait for a reader. Raises OSError."""
    if target == STDOUT:
        return 1
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(target, flags, 0o640)


def _reason(target: str, error: OSError) -> str:
    """Return why the log cannot be opened, and the remedy."""
    if error.errno == errno.ENXIO and Path(target).is_fifo():
        return "it is a FIFO that no process reads; start its reader first"
    return error.strerror or str(error)


def _blocks(lines: list[bytes]) -> Iterator[bytes]:
    """Yield blocks of whole lines, each small enough for a pipe to take whole or not at all."""
    block = b""
    for line in lines:
        if block and len(block) + len(line) > select.PIPE_BUF:
            yield block
            block = b""
        block += line
    yield block


def _in_whole(lines: list[bytes], written: int) -> tuple[int, int]:
    """Return how many whole lines were written, and how many bytes of the next line."""
    for number, line in enumerate(lines):
        if written < len(line):
            return number, written
        written -= len(line)
    return len(lines), 0
