"""Runs functions of other threads on the gate thread, in order; both engines have one of these.

One function runs in a turn of the engine's loop, so that clients are served between any two of
them, however many wait. A function that raises is logged as a bug, and the next one runs. Functions
may add functions. What is added after the gate thread has ended never runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from edgeproxy.log import EventLog

log = EventLog("engine")

CHECK_SECS = 0.1
"""Seconds between two checks whether the gate thread, which has to answer, is still alive."""

Answer = TypeVar("Answer")


class Commands:
    """The functions that wait for the gate thread.

    `wake` makes the gate thread, which is `thread`, call `run_next` soon.

    Attributes:
        pending: Functions that have not run yet.
    """

    def __init__(self, wake: Callable[[], object], thread: threading.Thread) -> None:
        self.pending: deque[Callable[[], object]] = deque()
        self._wake = wake
        self._thread = thread

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` on the gate thread soon. May be called from any thread."""
        self.pending.append(function)
        self._wake()

    def ask(self, function: Callable[[], Answer]) -> Answer | None:
        """Run `function` on the gate thread and return its result.

        Returns None if `function` raises, if the thread has not started, or if it ends first.
        On the gate thread itself, `function` runs at once.
        """
        if self._thread is threading.current_thread():
            return function()
        answers: list[Answer] = []
        done = threading.Event()

        def run() -> None:
            try:
                answers.append(function())
            finally:
                done.set()

        self.call(run)
        while self._thread.is_alive() and not done.wait(CHECK_SECS):
            pass
        return answers[0] if answers else None

    def ask_in_slices(self, slice_at: Callable[[int], list[Answer] | None]) -> Iterator[Answer]:
        """Yield the answers of `slice_at(0)`, `slice_at(1)` and so on, until one is None.

        Each runs on the gate thread, in a turn of its own.
        """
        number = 0
        while (answers := self.ask(partial(slice_at, number))) is not None:
            yield from answers
            number += 1

    def run_next(self) -> bool:
        """Run the function that has waited longest; return whether more wait. Gate thread only."""
        if self.pending:
            try:
                self.pending.popleft()()
            except Exception:  # noqa: BLE001
                log.bug("engine_command_failed")
        return bool(self.pending)

    def run_all(self) -> None:
        """Run everything that waits, at the end of the gate thread."""
        while self.run_next():
            pass
