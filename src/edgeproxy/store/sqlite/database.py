"""The routing database as an SQLite file: creates it, opens it, reads its rows, names its faults.

Every fault of SQLite or of the file becomes a `DatabaseError` here and nowhere else. Opening
never creates a file. This process must open the file only through SQLite: closing any other
descriptor of it would silently drop the locks that SQLite holds.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from contextlib import closing, contextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING, TypeVar

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.core.cluster.rows import ROUTES
from edgeproxy.core.pacing import Pause, no_pause, paced
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import lack_of_columns
from edgeproxy.store.snapshot import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_R = TypeVar("_R", bound=tuple[object, ...])

SCHEMA = """CREATE TABLE backends (
    id TEXT PRIMARY KEY,        -- unique name: sa-node-1
    app TEXT,                   -- the application it serves: myapp
    region TEXT,                -- sa, us, eu, ap or a short code of your own
    wg_ip TEXT,                 -- IPv4 or IPv6 address, usually on WireGuard
    port INTEGER,               -- 1 to 65535
    healthy INTEGER,            -- 0 or 1
    weight INTEGER,             -- share of new clients; 0 takes none
    soft_limit INTEGER,         -- connections at which it counts as fully loaded
    hard_limit INTEGER,         -- connections it never exceeds; 0 is no limit
    deleted INTEGER DEFAULT 0   -- 1: kept here, never used
)"""

ROUTES_TABLE = f"CREATE TABLE IF NOT EXISTS {ROUTES} (pattern TEXT PRIMARY KEY, app TEXT NOT NULL)"

_ROW_VERDICT = re.compile(
    r"^(CHECK constraint failed|NULL value|non-unique entry|[A-Z]+ value) in "
)
"""The verdicts of an integrity check on a single row: the row is at fault, not the file."""

READ_WAIT_SECS = 1.0
"""How long a read waits for another program's write to finish."""

STEPS_BETWEEN_RESTS = 1000
"""Steps of SQLite's virtual machine between two pauses: some tens of microseconds."""

DEADLINE_SECS = 60.0
"""How long all that is done on one connection may take."""

MAX_VALUE_BYTES = 16 << 20

MAX_HEAP_BYTES = 256 << 20
"""What all of SQLite may have in this process: a view that sorts needs room for all of its rows."""

EDIT_WAIT_SECS = 5.0
"""How long an edit waits for another program's read or write to finish."""


class DatabaseError(StoreError):
    """A fault of one database file; nothing has changed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}", reason)


class TableMissingError(DatabaseError):
    """The file is a database, perhaps an empty one, without a `backends` table."""


class Connection(sqlite3.Connection):
    """A connection to a database file.

    Attributes:
        is_immutable: SQLite takes the file for one that nobody changes, and sees no change of it.
    """

    is_immutable = False


def connect(path: Path, wait_secs: float) -> Connection:
    """Open an existing database; raises `sqlite3.Error` or `DatabaseError`.

    A write-protected file is opened for reading only. The connection may move between
    threads, one at a time. Transactions are begun and ended by hand. Nothing that is done on it
    takes longer than DEADLINE_SECS, unless `bound` says otherwise.
    """
    check_kind(path)
    connection = _opened(path, "mode=rw", wait_secs)
    if _is_mounted_read_only(path) and _needs_side_files(connection):
        connection.close()
        _check_log(path)
        connection = _opened(path, "mode=ro&immutable=1", wait_secs)
        connection.is_immutable = True
    bound(connection, DEADLINE_SECS)
    return connection


def bound(
    connection: sqlite3.Connection,
    secs: float,
    rest: Pause = no_pause,
    is_stopped: Callable[[], bool] = bool,
) -> None:
    """Interrupt what is done on this connection after this time, or once `is_stopped`."""
    deadline = time.monotonic() + secs

    def is_over() -> bool:
        rest()
        return is_stopped() or time.monotonic() > deadline

    connection.set_progress_handler(is_over, STEPS_BETWEEN_RESTS)


def check_kind(path: Path) -> None:
    """Raise DatabaseError for a FIFO or a device: SQLite would read it, and hold its locks."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError, ValueError):  # SQLite says it
            file = path.with_name(f"{path.name}{suffix}")
            mode = file.stat().st_mode
            if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not suffix):
                continue
            if suffix:
                beside = f"has `{file.name}` beside it, which is not a regular file: remove that"
                raise DatabaseError(path, beside)
            raise DatabaseError(path, "is not a regular file: name a database file")


def _opened(path: Path, options: str, wait_secs: float) -> Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=wait_secs,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    # Sorted in files, a view that never ends would fill the disk before its deadline.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
    # Text that is not UTF-8 must not fail the whole read: surrogates are not printable, so
    # that only its own row is refused.
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return connection


def _is_mounted_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (OSError, ValueError):
        return False


def _needs_side_files(connection: sqlite3.Connection) -> bool:
    """Return whether the file is a WAL database whose other files cannot be made."""
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN
    except sqlite3.Error:
        pass  # whatever it is, the next statement says it
    return False


def _check_log(path: Path) -> None:
    """Raise DatabaseError if there are changes in the write-ahead log."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise DatabaseError(
            path,
            "is on a file system that is mounted read-only, in WAL mode, and has changes in "
            f"{log.name} that cannot be read there: where it can be written, end WAL mode with "
            f"sqlite3 {quote(path.name)} 'PRAGMA journal_mode = DELETE'",
        )


@contextmanager
def transaction(path: Path, wait_secs: float = EDIT_WAIT_SECS) -> Iterator[sqlite3.Connection]:
    """Yield a connection in a write transaction: all of it happens, or nothing."""
    with naming_faults(path), closing(connect(path, wait_secs)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")  # closing without it undoes everything


def read_rows(
    connection: sqlite3.Connection, path: Path, rest: Pause = no_pause
) -> list[dict[str, object]]:
    """Return all rows in the order of the table, by lower-case column name.

    Raises `DatabaseError` where the table is missing, lacks a documented column, is damaged, even
    if SQLite could still read something from it, or holds too much.
    """
    columns = read_columns(connection, path)
    check_integrity(connection, path)
    names = [name for name in columns if name in (*COLUMNS, COUNTRY)]
    rows = connection.execute(f"SELECT {', '.join(names)} FROM backends")  # noqa: S608
    return [
        dict(zip(names, row, strict=True))
        for row in paced(within_bounds(rows, "backends", path), rest)
    ]


def check_integrity(
    connection: sqlite3.Connection, path: Path, pragma: str = "integrity_check"
) -> None:
    """Raise `DatabaseError` if `backends` is damaged, even if something could be read from it."""
    for (verdict,) in connection.execute(f"PRAGMA {pragma}(backends)"):
        if verdict != "ok" and not _ROW_VERDICT.search(verdict):
            raise DatabaseError(path, _damaged(path, verdict.splitlines()[-1]))


def within_bounds(rows: Iterable[_R], table: str, path: Path) -> Iterator[_R]:
    """Yield the rows of a table. Raises `DatabaseError` if it holds too much."""
    bounds = Bounds(table)
    for row in rows:
        if (fault := bounds.fault_with(row)) is not None:
            raise DatabaseError(path, fault)
        yield row


def read_routes(connection: sqlite3.Connection, path: Path) -> list[tuple[object, object]]:
    """Return all pairs of a server name and its app; none where there is no such table."""
    tables = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE lower(name) = ? AND type IN ('table', 'view')", (ROUTES,)
    )
    if tables.fetchone() is None:
        return []
    rows = connection.execute(f"SELECT pattern, app FROM {ROUTES} ORDER BY pattern")  # noqa: S608
    return [(row[0], row[1]) for row in within_bounds(rows, ROUTES, path)]


def read_columns(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Return the table's columns in lower case, at least the documented ones, or raise."""
    tables = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE lower(name) = 'backends' AND type IN ('table', 'view')"
    )
    if tables.fetchone() is None:
        raise TableMissingError(
            path,
            "has no table `backends`: create it as documented or, if nothing in the file is "
            f"needed, start anew with `edgeproxy db init --force --db {quote(str(path))}`",
        )
    description = connection.execute("SELECT * FROM backends LIMIT 0").description
    columns = [name.lower() for name, *_ in description]
    lack = lack_of_columns(columns)
    if lack is not None:
        raise DatabaseError(path, lack)
    return columns


def create(path: Path) -> bool:
    """Create a database with an empty `backends` table, unless there is a file; return whether.

    It appears whole or not at all. A file that exists, even an empty one, is not touched. Raises
    `DatabaseError` if the file cannot be created.
    """
    if os.path.lexists(path):
        return False
    with _new_file(path) as new:
        try:
            os.link(new, path)  # unlike a rename, it never replaces another file
        except FileExistsError:
            return False
    return True


def move_aside(path: Path) -> Path:
    """Rename a damaged file with its side files; return the new name."""
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(f"{aside}{suffix}")
    return aside


def replace(path: Path) -> None:
    """Replace the file, if there is one, by a database with an empty `backends` table.

    Keeps owner and permissions. Raises `DatabaseError` if the file cannot be created.
    """
    target = path.resolve()  # SQLite, too, keeps its side files beside the real file
    with _new_file(target) as new:
        with suppress(FileNotFoundError):
            old = target.stat()
            new.chmod(old.st_mode & 0o777)
            with suppress(PermissionError):
                os.chown(new, old.st_uid, old.st_gid)
        # First the side files: the new database must never be read with an old journal.
        for suffix in ("-journal", "-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        new.replace(target)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yield an empty database beside `path`; it is deleted afterwards unless it was moved."""
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    try:
        new.touch(mode=0o644, exist_ok=False)
        with naming_faults(path), closing(connect(new, EDIT_WAIT_SECS)) as connection:
            connection.execute(SCHEMA)
        yield new
    except OSError as error:
        folder = path.absolute().parent
        raise DatabaseError(path, f"cannot be made in {folder}: {error.strerror}") from error
    finally:
        with suppress(OSError):  # where it could not be made, it cannot be removed either
            new.unlink()


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into `DatabaseError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise DatabaseError(path, _reason(path, error)) from error
    except (MemoryError, OverflowError) as error:
        raise DatabaseError(
            path,
            "holds more than can be read: a value that is too large, or a view: does it end?",
        ) from error


def _reason(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest refines it
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "is locked by another program: nothing was changed, try again when it has finished"
    if code == sqlite3.SQLITE_INTERRUPT:
        return (
            f"was not read or changed within {DEADLINE_SECS:g} s: if its table `backends` is a "
            "view, does it end?"
        )
    is_unwritable = code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
    if is_unwritable and _is_mounted_read_only(path):
        return "is on a file system that is mounted read-only: change it where it can be written"
    if code == sqlite3.SQLITE_CANTOPEN:
        return _why_not_opened(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if is_unwritable:
        return f"cannot be written: allow it on the file and on {path.absolute().parent}"
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"cannot be read or written ({error}): is the disk full or failing?"
    return f"cannot be used as it is: {error}"


def _why_not_opened(path: Path) -> str:
    folder = path.absolute().parent
    try:
        if path.is_dir():
            return "is a directory: name a database file"
        path.stat()
    except FileNotFoundError:
        place = "" if path.is_absolute() else f" in {folder}"
        return (
            f"does not exist{place}: name another one with --db or EDGEPROXY_DB_PATH, restore it, "
            f"or make an empty one with `edgeproxy db init --db {quote(str(path))}`"
        )
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return f"cannot be opened: check the permissions of the file and of {folder}"


def _damaged(path: Path, detail: str) -> str:
    return (
        f"is damaged or not an SQLite database ({detail}): name another file, restore a copy, or "
        f"let `edgeproxy db init --force --db {quote(str(path))}` replace it by an empty one"
    )
