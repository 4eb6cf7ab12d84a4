"""Turns Ctrl+C, SIGTERM and SIGHUP into one exception, raised only where that is allowed.

A signal must not interrupt the clean-up, nor the moment between starting a child process and
recording it: either would leave a process or file behind. So a signal raises only inside `allowed`.
After one has been raised, the next waits until it is allowed again. A signal that arrives in
between is raised as soon as that is allowed.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption(BaseException):
    """A signal asks this program to end. `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


class StopSignals:
    """Receives the signals that ask this program to end."""

    def __init__(self) -> None:
        self._allowed = False
        self._pending: int | None = None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals inside; afterwards they do what they did before."""
        before = {number: signal.signal(number, self._arrived) for number in SIGNALS}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let an `Interruption` be raised inside, at any point."""
        self._allow()
        try:
            yield
        finally:
            self._allowed = False

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Raise nothing inside; a signal that arrives is raised at the end, if allowed before."""
        before, self._allowed = self._allowed, False
        try:
            yield
        finally:
            self._allowed = before
        if before:
            self._allow()

    def _allow(self) -> None:
        self._allowed = True
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._arrived(number, None)

    def _arrived(self, number: int, _frame: object) -> None:
        if not self._allowed:
            self._pending = number
            return
        self._allowed = False
        raise Interruption(number)
