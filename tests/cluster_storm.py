"""Edits and clients that go on at a POP while something happens."""

from __future__ import annotations

import threading
from contextlib import closing
from types import TracebackType
from typing import Self

from tests.cluster_pops import ClusterPop
from tests.waiting import wait_until

PAUSE_SECS = 0.05
JOIN_SECS = 30.0


class _Going:
    """Does something again and again, on a thread of its own, in a `with` block."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(JOIN_SECS)
        if kind is None and self._error is not None:
            raise self._error

    def wait_for_more(self, count: int) -> None:
        """Wait until it has been done so often from now on."""
        wanted = self.count + count
        wait_until(lambda: self.count >= wanted or self._error is not None, f"{count} more")

    def _run(self) -> None:
        try:
            while not self._over.wait(PAUSE_SECS):
                self._once()
                self.count += 1
        except BaseException as error:  # noqa: BLE001 — raised at the end of the block
            self._error = error

    def _once(self) -> None:
        raise NotImplementedError


class Editor(_Going):
    """Adds rows to the table of a POP, one in each transaction.

    Attributes:
        ids: Those of rows that are acknowledged.
    """

    def __init__(self, pop: ClusterPop, prefix: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self._pop = pop
        self._prefix = prefix

    def _once(self) -> None:
        backend_id = f"{self._prefix}-{self.count}"
        self._pop.add(backend_id)
        self.ids.add(backend_id)


class Clients(_Going):
    """Connects to the proxy of a POP, one client after another.

    Attributes:
        faults: What became of those that were not served.
    """

    def __init__(self, pop: ClusterPop) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._pop = pop

    def _once(self) -> None:
        try:
            with closing(self._pop.connect()) as client:
                client.sendall(b"echo\n")
                with client.makefile("r") as lines:
                    said = [lines.readline(), lines.readline()]
                if not said[0] or said[1] != "echo\n":
                    self.faults.append(f"{self._pop.name}: {said}")
        except OSError as error:
            self.faults.append(f"{self._pop.name}: {error!r}")
