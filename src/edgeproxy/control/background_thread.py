"""A thread that does one thing after another, and that the end of the process never waits for.

The threads of Python's own pools are waited for when the process ends, for ever if a file system
or a database hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_Work = tuple["Future[Any]", Callable[[], Any]]


class BackgroundThread:
    """Runs functions in order. Its methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()  # None ends the thread
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # since the first function
        self._is_closed = False

    def submit(self, function: Callable[[], _T]) -> Future[_T]:
        """Run this function after those before it. Raises RuntimeError after `close`."""
        future: Future[_T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the thread {self._name} has ended")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._work.put((future, function))
        return future

    def close(self, wait_secs: float) -> bool:
        """Take no more functions, wait for those before; return whether all have ended in time."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._work.put(None)
        if thread is not None:
            thread.join(max(wait_secs, 0))
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            _do(*work)
            del work  # what it holds is not kept until there is more to do


def _do(future: Future[_T], function: Callable[[], _T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)
    else:
        future.set_result(result)
