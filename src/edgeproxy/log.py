"""The event log: one line on stderr for each event, written by a thread of its own.

A text line is the event's name and then `key=value` pairs, for people and for grep; `json` gives
one object a line. The thread that reports an event never waits for the reader of stderr: when
`BACKLOG` lines are waiting, further ones are dropped, and the next line that is written says how
many.

Values may come from the network, so control characters are always escaped: an event is always one
line.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TextIO

BACKLOG = 10_000
STDERR = 2
ROOT = "edgeproxy"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How events are reported.

    Attributes:
        format: `text` or `json`.
        level: The least severe events that are reported: `debug`, `info`, `warning` or `error`.
    """

    format: str = "text"
    level: str = "info"


class EventLog:
    """Reports events of one part of the program, by name and fields."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{part}")

    def debug(self, event: str, **fields: object) -> None:
        """Report a detail for debugging; reported only at the level `debug`."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: object) -> None:
        """Report something that is normal and worth a line."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        """Report something an operator should look at; the proxy goes on as before."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        """Report something that does not work."""
        self._logger.error(event, extra={"fields": fields})

    def bug(self, event: str, **fields: object) -> None:
        """Report an unexpected exception, with its traceback in one field."""
        self._logger.exception(event, extra={"fields": fields})  # noqa: LOG004


class Throttle:
    """Admits one event every `interval_secs` and counts the others."""

    __slots__ = ("_interval_secs", "_next", "_suppressed")

    def __init__(self, interval_secs: float) -> None:
        self._interval_secs = interval_secs
        self._next = float("-inf")
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """Return the number suppressed since the last admitted event; None suppresses this one."""
        if now < self._next:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        self._next = now + self._interval_secs
        return suppressed


def _plain(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class TextFormatter(logging.Formatter):
    """`event key=value … level=info time=…`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one event."""
        parts = [record.getMessage()]
        parts += [f"{key}={_plain(value)}" for key, value in _fields(record, self).items()]
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object, the event's name under `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one event."""
        event = {"event": record.getMessage(), **_fields(record, self)}
        return json.dumps(event, default=str)


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, object]:
    fields: dict[str, object] = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["traceback"] = formatter.formatException(record.exc_info)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields["level"] = record.levelname.lower()
    fields["time"] = f"{stamp}.{int(record.msecs):03d}Z"
    return fields


class Writer(logging.Handler):
    """Writes formatted lines from a thread of its own; never blocks a reporter.

    `write` may block and may raise OSError. A signal handler may report while the thread it
    interrupts is reporting: nothing but the queue is shared, and that allows it.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write
        self._lines: SimpleQueue[str | None] = SimpleQueue()  # None ends the thread
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line, or count it as dropped when the stream is not read."""
        if self._lines.qsize() >= BACKLOG:
            self._dropped += 1
            return
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001
            line = f"{record.msg} fields={_plain(repr(error))}"
        self._lines.put(line)

    def _run(self) -> None:
        over = False
        while not over:
            waiting = [self._lines.get()]
            waiting += [self._lines.get() for _ in range(self._lines.qsize())]
            lines = [line for line in waiting if line is not None]
            over = len(lines) < len(waiting)
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(self.format(_report_of(dropped)))
            if lines:
                self._write_lines(lines)

    def _write_lines(self, lines: list[str]) -> None:
        try:
            self._write("\n".join(lines) + "\n")
        except (OSError, ValueError):
            pass  # stderr is gone: there is no place to report that

    def close(self) -> None:
        """Write the waiting lines, for at most a second."""
        self._lines.put(None)
        self._thread.join(timeout=1)
        super().close()


def _write_to_stderr(text: str) -> None:
    """Write past the buffer of `sys.stderr`, whose flush at the exit could block or fail."""
    waiting = memoryview(text.encode(errors="backslashreplace"))
    while waiting:
        try:
            waiting = waiting[os.write(STDERR, waiting) :]
        except BlockingIOError:  # another process made it non-blocking: wait as usual
            room = select.poll()
            room.register(STDERR, select.POLLOUT)
            room.poll()


def _report_of(dropped: int) -> logging.LogRecord:
    record = logging.LogRecord(ROOT, logging.WARNING, "", 0, "log_lines_dropped", None, None)
    record.fields = {"count": dropped}
    return record


def start(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send events to `stream` (stderr by default). Replaces an earlier start."""
    logger = logging.getLogger(ROOT)
    stop()
    writer = Writer(stream.write if stream else _write_to_stderr)
    writer.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logger.addHandler(writer)
    set_level(settings.level)
    logger.propagate = False
    atexit.register(stop)


def set_level(level: str) -> None:
    """Report events of this level, and more severe ones, from now on."""
    logging.getLogger(ROOT).setLevel(level.upper())


def stop() -> None:
    """Write the waiting lines and stop."""
    logger = logging.getLogger(ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
