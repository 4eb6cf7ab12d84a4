"""Reading a routing database in a file, and noticing every way in which a file can change.

What files and servers have in common is in the conformance suite.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store import snapshot
from edgeproxy.store.snapshot import SkippedRow
from edgeproxy.store.sqlite.database import MAX_HEAP_BYTES, connect, replace
from edgeproxy.store.sqlite.nodes import Nodes
from edgeproxy.store.sqlite.store import DatabaseSettings, SqliteStore
from tests.store.editing import (
    DOCUMENTED_INSERT,
    DOCUMENTED_TABLE,
    documented,
    execute,
    locked,
    release,
    sqlite3_command,
)
from tests.waiting import PAUSE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREE = (
    Backend("sa-node-1", "myapp", "sa", "10.50.1.1", 8080, True, 2, 50, 100),
    Backend("us-node-1", "myapp", "us", "10.50.2.1", 8080, True, 2, 50, 100),
    Backend("eu-node-1", "myapp", "eu", "10.50.3.1", 8080, True, 2, 50, 100),
)
SET_WEIGHT = "UPDATE backends SET weight = {} WHERE id = 'sa-node-1';"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routing.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def weight(store: SqliteStore) -> int:
    return store.read().backends[0].weight


def test_the_documented_path_and_interval_are_the_defaults() -> None:
    settings = DatabaseSettings()
    assert (str(settings.path), settings.reload_secs) == ("routing.db", 5.0)


def test_the_documented_sql_works_with_the_sqlite3_command(path: Path, store: SqliteStore) -> None:
    sqlite3_command(path, DOCUMENTED_TABLE)
    assert store.read().backends == ()
    assert not store.changed()
    sqlite3_command(path, DOCUMENTED_INSERT)
    assert store.changed()
    assert store.read().backends == THREE
    assert "sa-node-1|1" in sqlite3_command(path, "SELECT id, healthy FROM backends;")


def test_the_documented_insert_works_on_a_database_we_made(path: Path, store: SqliteStore) -> None:
    assert store.ensure()
    assert not store.ensure()
    sqlite3_command(path, DOCUMENTED_INSERT)
    assert store.read().backends == THREE


def test_faulty_rows_are_skipped_and_named_and_the_others_are_read(
    path: Path, store: SqliteStore
) -> None:
    documented(path)
    execute(
        path,
        "INSERT INTO backends VALUES"
        " ('big-port', 'myapp', 'sa', '10.50.1.1', 70000, 1, 2, 50, 100, 0),"
        " ('heavy', 'myapp', 'sa', '10.50.1.1', 8080, 1, 'much', 50, 100, 0),"
        " ('half', 'myapp', 'sa', '10.50.1.1', 80.5, 1, 1, 50, 100, 0),"
        " (NULL, 'myapp', 'sa', '10.50.1.1', 8080, 1, 2, 50, 100, 0),"
        " ('text-port', 'myapp', 'sa', '10.50.1.4', '9000', 1, 2, 50, 100, 0);",
    )
    snapshot = store.read()
    assert [backend.id for backend in snapshot.backends[3:]] == ["text-port"]  # SQLite converts it
    assert snapshot.skipped == (
        SkippedRow("big-port", "port 70000 is not allowed: 1 to 65535"),
        SkippedRow("heavy", "weight 'much' is not allowed: a whole number, 0 or more"),
        SkippedRow("half", "port 80.5 is not allowed: a whole number, 1 to 65535"),
        SkippedRow(
            "row 7", "id NULL is not allowed: 1 to 128 printable characters, not only blanks"
        ),
    )


def test_a_skipped_row_is_named_within_bounds(path: Path, store: SqliteStore) -> None:
    execute(path, DOCUMENTED_TABLE)
    execute(path, "INSERT INTO backends (id) VALUES (printf('%.*c', 100000, 'x'))")
    (row,) = store.read().skipped
    assert row.id == "x" * 128
    assert len(row.reason) < 300


def test_an_edit_is_noticed_even_if_the_file_looks_the_same(path: Path, store: SqliteStore) -> None:
    documented(path)
    before = path.stat()
    store.read()
    execute(path, SET_WEIGHT.format(9))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert store.changed()
    assert weight(store) == 9


def test_a_replaced_file_is_noticed(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    documented(path)
    store.read()
    other = documented(tmp_path / "other.db")
    execute(other, SET_WEIGHT.format(9))
    other.replace(path)
    assert store.changed()
    assert weight(store) == 9
    execute(path, SET_WEIGHT.format(10))  # the new file is the one that is watched now
    assert store.changed()
    assert weight(store) == 10


def test_a_file_overwritten_in_place_is_noticed(
    path: Path, store: SqliteStore, tmp_path: Path
) -> None:
    documented(path)
    other = tmp_path / "other.db"
    subprocess.run(["cp", path, other], check=True)
    execute(other, SET_WEIGHT.format(9))
    execute(path, SET_WEIGHT.format(3))  # both files have made the same number of changes
    store.read()
    inode = path.stat().st_ino
    subprocess.run(["cp", other, path], check=True)
    assert path.stat().st_ino == inode
    assert store.changed()
    assert weight(store) == 9


def test_a_deleted_file_is_noticed_never_made_anew_and_read_again_when_it_is_back(
    path: Path, store: SqliteStore
) -> None:
    documented(path)
    store.read()
    path.unlink()
    assert store.changed()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"does not exist: .*`edgeproxy db init"):
            store.read()
        assert store.changed()
    assert not path.exists()
    documented(path)
    assert store.changed()
    assert store.read().backends == THREE
    assert not store.changed()


def test_a_database_with_a_write_ahead_log_is_followed(path: Path, store: SqliteStore) -> None:
    documented(path)
    execute(path, "PRAGMA journal_mode = WAL")
    store.read()
    for value in range(5, 10):
        before = path.stat()
        execute(path, SET_WEIGHT.format(value))
        # The kept connection keeps the log: the commit is in there, the file is as before.
        assert path.stat() == before
        assert store.changed()
        assert weight(store) == value
        assert not store.changed()


def test_a_checkpoint_changes_nothing_that_was_read(path: Path, store: SqliteStore) -> None:
    documented(path)
    execute(path, "PRAGMA journal_mode = WAL")
    store.read()
    execute(path, SET_WEIGHT.format(7))
    assert weight(store) == 7
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert weight(store) == 7
    assert not store.changed()


def test_letting_go_of_a_replaced_database_spares_the_log_of_the_new_one(
    path: Path, store: SqliteStore
) -> None:
    documented(path)
    execute(path, "PRAGMA journal_mode = WAL")
    store.read()
    execute(path, SET_WEIGHT.format(5))
    replace(path)
    execute(path, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(path)) as other:
        other.executescript(DOCUMENTED_INSERT)  # still only in the new log
        assert store.changed()
        assert store.read().backends == THREE
        assert path.with_name("routing.db-wal").stat().st_size > 0
    assert store.read().backends == THREE


def test_no_lock_is_held_between_reads(path: Path, store: SqliteStore) -> None:
    documented(path)
    store.read()
    with locked(path):
        pass  # somebody got the whole database for themselves
    assert not store.changed()
    with locked(path):
        pass


def test_a_locked_database_is_named_and_followed_when_it_is_free(
    path: Path, store: SqliteStore
) -> None:
    documented(path)
    store.read()
    with locked(path) as process:
        with pytest.raises(StoreError, match="is locked by another program"):
            store.changed()
        with pytest.raises(StoreError, match="is locked by another program"):
            store.read(wait_secs=0.1)
        release(process)
    assert store.changed()  # because the last read failed
    assert store.read().backends == THREE


def test_a_read_waits_for_a_short_lock(path: Path, store: SqliteStore) -> None:
    documented(path)
    with locked(path) as process:
        timer = threading.Timer(0.2, release, [process])
        timer.start()
        assert store.read(wait_secs=20).backends == THREE
        timer.join()


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "emptied"])
def test_a_damaged_file_is_named_and_a_restored_one_is_read(
    path: Path, store: SqliteStore, tmp_path: Path, damage: str
) -> None:
    documented(path)
    shutil.copy(path, tmp_path / "good.db")
    store.read()
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[:6000],
            "overwritten": content[:4096] + os.urandom(4096) + content[8192:],
            "emptied": b"",
        }[damage]
    )
    for _ in range(2):
        assert store.changed()
        with pytest.raises(StoreError, match="edgeproxy db init --force"):
            store.read()
    shutil.copy(tmp_path / "good.db", path)
    assert store.changed()
    assert store.read().backends == THREE


# -- what does not end


_REST = (
    "'a' AS app, 'sa' AS region, '127.0.0.1' AS wg_ip, 80 AS port, 1 AS healthy, 1 AS weight, "
    "1 AS soft_limit, 1 AS hard_limit, 0 AS deleted FROM numbers"
)
ENDLESS = {
    "with rows": f"SELECT '' || n AS id, {_REST}",
    "with large rows": f"SELECT hex(zeroblob(1000000)) AS id, {_REST}",
    "in order": f"SELECT hex(zeroblob(5000)) || n AS id, {_REST} ORDER BY n DESC",
    "without a row": f"SELECT '' AS id, {_REST} WHERE n < 0",
}


def endless(path: Path, kind: str) -> None:
    execute(
        path,
        "DROP TABLE IF EXISTS backends; CREATE VIEW backends AS WITH RECURSIVE numbers(n) AS "
        f"(SELECT 1 UNION ALL SELECT n + 1 FROM numbers) {ENDLESS[kind]}",
    )


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_view_that_never_ends_is_a_fault(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_ROWS", 20_000)
    execute(path, DOCUMENTED_TABLE + DOCUMENTED_INSERT)
    store = SqliteStore(path, deadline_secs=1.0 if kind == "without a row" else 600.0)
    assert store.read().backends == THREE
    endless(path, kind)
    assert store.changed()
    with pytest.raises(StoreError, match="does it end"):
        store.read()
    execute(path, "DROP VIEW backends;" + DOCUMENTED_TABLE + DOCUMENTED_INSERT)
    assert store.changed()
    assert store.read().backends == THREE
    store.close()


def test_what_sqlite_keeps_for_a_view_goes_into_no_file(path: Path) -> None:
    """Files would have to be watched as well: they can fill the disk."""
    execute(path, DOCUMENTED_TABLE)
    with closing(connect(path, 1.0)) as connection:
        assert connection.execute("PRAGMA temp_store").fetchone() == (2,)
        assert connection.execute("PRAGMA hard_heap_limit").fetchone() == (MAX_HEAP_BYTES,)


@pytest.mark.parametrize("table", ["edgeproxy_routes", "edgeproxy_leases"])
def test_a_further_table_that_never_ends_is_a_fault(path: Path, table: str) -> None:
    columns = "'x' || n AS pattern, 'a' AS app, 'x' || n AS id, 'BR' AS country"
    execute(
        path,
        f"{DOCUMENTED_TABLE} CREATE VIEW {table} AS WITH RECURSIVE numbers(n) AS "
        f"(SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT {columns} FROM numbers",
    )
    store = SqliteStore(path, deadline_secs=2.0)
    with pytest.raises(StoreError, match="does it end"):
        store.read()


def test_a_read_that_does_not_end_is_interrupted_from_another_thread(path: Path) -> None:
    endless(path, "without a row")
    store = SqliteStore(path, deadline_secs=600.0)
    faults: list[StoreError] = []

    def read() -> None:
        try:
            store.read()
        except StoreError as error:
            faults.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    PAUSE.wait(0.2)
    store.interrupt()
    reading.join(20)
    assert [fault.reason for fault in faults] == ["is left unread: this process stops"]


@pytest.mark.parametrize("other", ["fifo", "/dev/zero", "/dev/null"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, other: str) -> None:
    path = tmp_path / "routing.db"
    if other == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    with pytest.raises(StoreError, match="is not a regular file"):
        SqliteStore(path).read()


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_what_lies_beside_is_a_regular_file_too_or_nothing_is_locked(
    tmp_path: Path, suffix: str
) -> None:
    """SQLite would wait for whoever writes to it, and hold its locks meanwhile."""
    path = documented(tmp_path / "routing.db")
    other = tmp_path / f"routing.db{suffix}"
    os.mkfifo(other)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"`routing.db{suffix}` .* not a regular file"):
        store.read()
    other.unlink()
    assert len(store.read().backends) == 3
    store.close()


# -- a file system that is mounted read-only


@contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, for reading only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    for options in (("--bind",), ("-o", "remount,bind,ro")):
        source = (str(folder),) if options == ("--bind",) else ()
        done = subprocess.run(
            ["mount", *options, *source, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
            pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_on_a_read_only_mount_is_read_and_followed(path: Path, mode: str) -> None:
    execute(path, f"PRAGMA journal_mode = {mode};" + DOCUMENTED_TABLE + DOCUMENTED_INSERT)
    inside = path.parent / "inside"
    inside.mkdir()
    with closing(SqliteStore(inside / "routing.db")) as store:
        path.rename(store.path)
        path.symlink_to(store.path)
        outside = path.parent / "outside"
        outside.mkdir()
        subprocess.run(["mount", "--bind", str(inside), str(outside)], check=False)
        try:
            with mounted_read_only(inside):
                assert store.read().backends == THREE
                assert not store.changed()
                execute(outside / "routing.db", SET_WEIGHT.format(7))
                assert store.changed()
                assert weight(store) == 7
                with pytest.raises(StoreError, match="mounted read-only"):
                    Nodes(store.path).disable("sa-node-1")
                assert len(Nodes(store.path).read()) == 3
        finally:
            subprocess.run(["umount", "--lazy", str(outside)], check=False)


def test_changes_that_only_a_log_on_a_read_only_mount_has_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    path = folder / "routing.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.executescript("PRAGMA journal_mode = wal;" + DOCUMENTED_TABLE + DOCUMENTED_INSERT)
        copied = tmp_path / "copied"
        shutil.copytree(folder, copied)
    (copied / "routing.db-shm").unlink()
    with mounted_read_only(copied), pytest.raises(StoreError, match=r"changes in routing\.db-wal"):
        SqliteStore(copied / "routing.db").read()
