"""Stores that fail when they are told to, and tell the oracle what was committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.core.cluster.messages import Push
from edgeproxy.core.cluster.store import MemoryStore
from edgeproxy.errors import StateError

PLACES = ("before", "inside", "after")


class Crash(BaseException):
    """The process ends here."""


class Fuse:
    """Decides which transaction of a process fails.

    Attributes:
        is_full: There is no room on the disk.
        written: What the transaction that is under way writes, if it is one of the replica.
        note: Is told of what was committed.
    """

    def __init__(self, note: Callable[[list[Push]], object]) -> None:
        self.is_full = False
        self.written: list[Push] = []
        self.note = note
        self.commits = 0
        self._left = 0
        self._place = ""

    def burn(self, transactions: int, place: str) -> None:
        """Let the process crash at a later transaction."""
        self._left, self._place = transactions, place

    def reset(self) -> None:
        self._left, self._place, self.is_full = 0, "", False
        self.written.clear()

    def reach(self, place: str) -> None:
        """Fail, if it is time to."""
        if place == self._place:
            self._left -= 1
            if self._left <= 0:
                self._place = ""
                raise Crash
        if place == "inside" and self.is_full:
            raise StateError("there is no room on the disk")

    @contextmanager
    def around(self) -> Iterator[None]:
        """Watch a transaction that commits when the block ends."""
        try:
            yield
        finally:
            self.written.clear()

    def committed(self) -> None:
        self.commits += 1
        self.note(list(self.written))


class MemoryDisk(MemoryStore):
    """A store in memory that outlives its processes."""

    def __init__(self, fuse: Fuse, state_id: str) -> None:
        super().__init__()
        self.fuse = fuse
        self.state_id = state_id

    @contextmanager
    def transaction(self) -> Iterator[None]:
        fuse = self.fuse
        with fuse.around():
            fuse.reach("before")
            with super().transaction():
                yield
                fuse.reach("inside")
            fuse.committed()
        fuse.reach("after")

    def close(self) -> None: ...


class FileDisk(StateFile):
    """The real state file."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        self.fuse = fuse
        super().__init__(path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        fuse = self.fuse
        with fuse.around():
            fuse.reach("before")
            with super().transaction():
                yield
                fuse.reach("inside")
            fuse.committed()
        fuse.reach("after")

    def back_up(self, path: Path) -> None:
        """Copy the file while it is in use."""
        with closing(sqlite3.connect(path)) as target:
            self._connection.backup(target)


Disk = MemoryDisk | FileDisk


def copied_file(path: Path, to: Path) -> None:
    """Copy a database while it is in use."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
