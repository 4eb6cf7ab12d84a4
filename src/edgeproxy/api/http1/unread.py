"""Bounds the answers that wait because their callers do not read them.

Small answers fit into the buffers of the system and are not counted, so a heartbeat is always
answered. For one event loop.
"""

from __future__ import annotations

from collections import Counter

SMALL_BYTES = 64 * 1024
MAX_BYTES = 128 * 1024 * 1024
MAX_BYTES_OF_ONE = 32 * 1024 * 1024
"""Several lists of 20,000 backends, of one caller."""


class UnreadAnswers:
    """Counts the bytes of large answers, in all and by caller."""

    def __init__(self) -> None:
        self._bytes_of: Counter[str] = Counter()
        self._total = 0

    def take(self, key: str, size: int) -> bool:
        """Count an answer that is about to be written; return whether it may be."""
        is_first = not self._bytes_of[key]  # however large it is
        if self._total and self._total + size > MAX_BYTES:
            return False
        if not is_first and self._bytes_of[key] + size > MAX_BYTES_OF_ONE:
            return False
        self._bytes_of[key] += size
        self._total += size
        return True

    def give_back(self, key: str, size: int) -> None:
        """An answer has been read, or its connection has ended."""
        self._bytes_of[key] -= size
        self._total -= size
        if not self._bytes_of[key]:
            del self._bytes_of[key]
