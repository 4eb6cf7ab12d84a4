"""The database file: made whole or not at all, and every fault named with what to do."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.store.sqlite.database import (
    DatabaseError,
    TableMissingError,
    connect,
    create,
    naming_faults,
    read_rows,
    replace,
    transaction,
)
from tests.store.editing import DOCUMENTED_TABLE, documented, execute, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = "INSERT INTO backends (id) VALUES (?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routing.db"


def read(path: Path) -> list[dict[str, object]]:
    with naming_faults(path), closing(connect(path, 0.1)) as connection:
        return read_rows(connection, path)


def columns_of(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA table_info(backends)").fetchall()


@contextmanager
def unprivileged() -> Iterator[None]:
    """File permissions count, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can enter: pytest's own are private."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_a_created_database_has_exactly_the_documented_table(path: Path, tmp_path: Path) -> None:
    assert create(path)
    execute(tmp_path / "documented.db", DOCUMENTED_TABLE)
    assert columns_of(path) == columns_of(tmp_path / "documented.db")
    assert read(path) == []
    assert sorted(tmp_path.iterdir()) == [tmp_path / "documented.db", path]


def test_creating_never_touches_an_existing_file(path: Path) -> None:
    for content in (b"", b"not a database"):
        path.write_bytes(content)
        assert not create(path)
        assert path.read_bytes() == content


def test_of_many_who_create_the_same_database_one_does(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, [path] * 16))
    assert sum(made) == 1
    assert read(path) == []
    assert list(path.parent.iterdir()) == [path]


def test_a_database_is_not_created_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "routing.db"
    with pytest.raises(DatabaseError) as error:
        create(path)
    assert str(error.value) == f"{path} cannot be made in {path.parent}: No such file or directory"
    assert not path.parent.exists()


def test_a_database_is_not_created_where_that_is_forbidden(public_folder: Path) -> None:
    path = public_folder / "routing.db"
    public_folder.chmod(0o555)
    with unprivileged(), pytest.raises(DatabaseError, match=r"cannot be made in .*: Perm"):
        create(path)
    public_folder.chmod(0o755)
    assert not path.exists()


def test_replacing_leaves_an_empty_table_and_nothing_of_the_old_file(path: Path) -> None:
    documented(path)
    path.chmod(0o640)
    for suffix in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_bytes(b"left over")
    replace(path)
    assert read(path) == []
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_replacing_makes_a_missing_file(path: Path) -> None:
    replace(path)
    assert read(path) == []


def test_replacing_follows_a_link_to_the_real_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    real = documented(tmp_path / "data" / "real.db")
    path.symlink_to(real)
    replace(path)
    assert path.is_symlink()
    assert read(real) == []


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41 é.db"
    assert create(path)
    with transaction(path) as connection:
        connection.execute(INSERT, ("x",))
    assert [row["id"] for row in read(path)] == ["x"]
    assert list(tmp_path.iterdir()) == [path]


def test_opening_never_creates_a_file(path: Path) -> None:
    with pytest.raises(DatabaseError) as error:
        read(path)
    assert error.value.reason == (
        "does not exist: name another one with --db or EDGEPROXY_DB_PATH, restore it, "
        f"or make an empty one with `edgeproxy db init --db {path}`"
    )
    assert not path.exists()


def test_a_directory_is_not_a_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="is a directory: name a database file"):
        read(tmp_path)


def test_a_path_through_a_file_says_so(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(DatabaseError, match="cannot be opened: Not a directory"):
        read(path / "below.db")


def test_an_unreadable_file_says_where_permission_is_missing(public_folder: Path) -> None:
    path = documented(public_folder / "routing.db")
    path.chmod(0)
    with unprivileged(), pytest.raises(DatabaseError, match="cannot be opened: check the permis"):
        read(path)


def test_a_read_only_database_can_be_read_but_not_edited(public_folder: Path) -> None:
    path = documented(public_folder / "routing.db")
    path.chmod(0o444)
    before = path.read_bytes()
    with unprivileged():
        assert len(read(path)) == 3
        with (
            pytest.raises(StoreError, match="cannot be written: allow it on the file and on"),
            transaction(path) as connection,
        ):
            connection.execute(INSERT, ("x",))
    assert path.read_bytes() == before


def test_a_full_disk_is_named_and_changes_nothing(path: Path) -> None:
    documented(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))  # the file cannot grow
    try:
        with pytest.raises(DatabaseError) as error, transaction(path) as connection:
            connection.executemany(INSERT, [(f"{number:0100}",) for number in range(500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "is the disk full or failing?" in error.value.reason
    assert [row["id"] for row in read(path)] == ["sa-node-1", "us-node-1", "eu-node-1"]


def test_an_error_inside_a_transaction_takes_everything_back(path: Path) -> None:
    documented(path)

    def edit_and_fail() -> None:
        with transaction(path) as connection:
            connection.execute(INSERT, ("x",))
            raise KeyError("mistake")

    with pytest.raises(KeyError):
        edit_and_fail()
    assert len(read(path)) == 3


def test_a_locked_database_is_named_and_can_be_edited_afterwards(path: Path) -> None:
    documented(path)
    with locked(path):
        with pytest.raises(DatabaseError, match="is locked by another program: nothing was"):
            read(path)
        with (
            pytest.raises(DatabaseError, match="is locked by another program: nothing was"),
            transaction(path, wait_secs=0.1),
        ):
            raise AssertionError("got in")
    with transaction(path) as connection:
        connection.execute(INSERT, ("x",))
    assert len(read(path)) == 4


@pytest.mark.parametrize("size", [50, 1000, 5000])
def test_a_truncated_file_is_damaged(path: Path, size: int) -> None:
    documented(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DatabaseError, match=r"is damaged .*edgeproxy db init --force --db "):
        read(path)


def test_overwritten_bytes_are_damage_even_where_sqlite_reads_on(path: Path) -> None:
    documented(path)
    content = bytearray(path.read_bytes())
    first = content.index(b"eu-node-1myapp")
    content[first - 12 : first + 60] = bytes(72)  # inside a row: the page itself stays readable
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        assert len(connection.execute("SELECT * FROM backends").fetchall()) == 3
    with pytest.raises(DatabaseError, match="is damaged or not an SQLite database"):
        read(path)


def test_a_text_file_is_not_a_database(path: Path) -> None:
    path.write_text("id,app,region\n" * 100)
    with pytest.raises(DatabaseError, match=r"damaged or not an SQLite database \(file is not a"):
        read(path)


@pytest.mark.parametrize("script", ["", "CREATE TABLE nodes (id TEXT)"])
def test_a_database_without_the_table_says_so(path: Path, script: str) -> None:
    path.write_bytes(b"")
    execute(path, script)
    with pytest.raises(TableMissingError, match="has no table `backends`: create it as documented"):
        read(path)


def test_missing_columns_are_named(path: Path) -> None:
    execute(path, "CREATE TABLE backends (id TEXT, app, region, wg_ip, port, healthy, deleted)")
    with pytest.raises(DatabaseError, match="has no column weight, soft_limit, hard_limit in its"):
        read(path)


def test_rows_are_read_by_column_name_whatever_the_table_looks_like(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE Backends (note TEXT, Deleted, hard_limit, soft_limit, weight, healthy, port,"
        " wg_ip, region, Country, app, ID PRIMARY KEY) WITHOUT ROWID;"
        "INSERT INTO backends (id, country, port) VALUES ('b', 'BR', 1), ('a', 'AR', '2')",
    )
    rows = read(path)
    assert [(row["id"], row["country"], row["port"]) for row in rows] == [
        ("a", "AR", "2"),
        ("b", "BR", 1),
    ]


def test_text_that_is_not_utf8_spoils_only_its_own_row(path: Path) -> None:
    documented(path)
    execute(path, "INSERT INTO backends (id) VALUES (CAST(x'61ff' AS TEXT))")
    assert [row["id"] for row in read(path)][2:] == ["eu-node-1", "a\udcff"]


def test_what_a_killed_writer_left_half_done_is_taken_back_by_reading(path: Path) -> None:
    documented(path)
    writer = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\n"  # pages reach the file before the end
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('UPDATE backends SET weight = 77')\n"
        "connection.executemany('INSERT INTO backends (id) VALUES (?)',"
        " [(f'{n:0200}',) for n in range(500)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", writer, str(path)], check=False)
    assert path.with_name("routing.db-journal").stat().st_size > 0
    assert b"0" * 190 in path.read_bytes()
    assert [(row["id"], row["weight"]) for row in read(path)] == [
        ("sa-node-1", 2),
        ("us-node-1", 2),
        ("eu-node-1", 2),
    ]
