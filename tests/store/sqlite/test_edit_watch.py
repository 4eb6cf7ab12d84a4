"""Whatever writes the file is noticed soon; what does not is not told."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.store.sqlite.edit_watch import LOOK_SECS, EditWatch
from tests.store.editing import documented, execute
from tests.waiting import PAUSE, wait_until

UPDATE = "UPDATE backends SET weight = weight + 1"


class Watched:
    """A database file that is watched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told = threading.Semaphore(0)
        self.watch = EditWatch(path, self.told.release)
        self.watch.begin()
        PAUSE.wait(2 * LOOK_SECS)  # it has looked

    def is_told(self, secs: float = 20.0) -> bool:
        return self.told.acquire(timeout=secs)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(documented(tmp_path / "routing.db"))
    yield watched
    watched.watch.end()


def replace(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("change", [lambda p: execute(p, UPDATE), replace, overwrite, Path.unlink])
def test_what_writes_the_file_is_told(watched: Watched, change: Callable[[Path], None]) -> None:
    change(watched.path)
    assert watched.is_told()


def test_a_file_that_comes_to_be_is_told(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "routing.db")
    documented(watched.path)
    assert watched.is_told()
    watched.watch.end()


def test_a_commit_that_is_only_in_the_log_is_told(watched: Watched) -> None:
    with closing(sqlite3.connect(watched.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(UPDATE)
        assert watched.is_told()
        while watched.is_told(10 * LOOK_SECS):
            pass
        before = watched.path.stat()
        connection.execute(UPDATE)
        assert watched.is_told()
        assert watched.path.stat() == before


def test_readers_are_not_told(watched: Watched) -> None:
    for _ in range(10):
        with closing(sqlite3.connect(watched.path)) as connection:
            connection.execute("SELECT * FROM backends").fetchall()
    assert not watched.is_told(10 * LOOK_SECS)


def test_who_writes_without_a_pause_is_told_too(watched: Watched) -> None:
    over = threading.Event()

    def write() -> None:
        with watched.path.open("r+b") as file:
            while not over.is_set():
                file.write(b"S")  # as it begins anyway
                file.seek(0)
                file.flush()

    writing = threading.Thread(target=write)
    writing.start()
    is_told = watched.is_told()
    over.set()
    writing.join()
    assert is_told


def test_nothing_is_told_while_a_long_read_is_rested_from(watched: Watched) -> None:
    watched.watch.note_read(time.monotonic() - 10.0)
    execute(watched.path, UPDATE)
    assert not watched.is_told(10 * LOOK_SECS)
    watched.watch.note_read(time.monotonic())
    assert watched.is_told()


def test_it_ends(watched: Watched) -> None:
    watched.watch.end()
    wait_until(lambda: all(each.name != "edit_watch" for each in threading.enumerate()), "its end")
