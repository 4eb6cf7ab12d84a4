"""What is reported to the log, kept for tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Events(logging.Handler):
    """Keeps what was reported: level, event and fields."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        self.all.append((record.levelname.lower(), record.getMessage(), fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.all if name == event]


@contextmanager
def events_of(part: str) -> Iterator[Events]:
    """Keep what one part of the program reports."""
    logger = logging.getLogger(f"edgeproxy.{part}")
    handler = Events()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
