"""How people and programs other than edgeProxy touch a routing database."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENTED_TABLE = """CREATE TABLE backends (
    id TEXT PRIMARY KEY,      -- "sa-node-1"
    app TEXT,                 -- "myapp"
    region TEXT,              -- "sa", "us", "eu"
    wg_ip TEXT,               -- WireGuard IP
    port INTEGER,             -- Backend port
    healthy INTEGER,          -- 0 or 1
    weight INTEGER,           -- Load balancing weight
    soft_limit INTEGER,       -- Comfortable connection count
    hard_limit INTEGER,       -- Maximum connections
    deleted INTEGER DEFAULT 0
);"""

DOCUMENTED_INSERT = """INSERT INTO backends VALUES
    ('sa-node-1', 'myapp', 'sa', '10.50.1.1', 8080, 1, 2, 50, 100, 0),
    ('us-node-1', 'myapp', 'us', '10.50.2.1', 8080, 1, 2, 50, 100, 0),
    ('eu-node-1', 'myapp', 'eu', '10.50.3.1', 8080, 1, 2, 50, 100, 0);"""

_LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
connection.close()
"""


def execute(path: Path, script: str) -> None:
    """Run SQL as another program does, on a connection of its own; creates a missing file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def documented(path: Path) -> Path:
    """Make a database with the documented table and its three rows."""
    execute(path, DOCUMENTED_TABLE + DOCUMENTED_INSERT)
    return path


def sqlite3_command(path: Path, sql: str) -> str:
    """Run SQL with the real command, as the documents tell scripts to; skip without it."""
    command = shutil.which("sqlite3")
    if command is None:
        pytest.skip("the sqlite3 command is not installed")
    done = subprocess.run(
        [command, "-bail", "-cmd", ".timeout 5000", str(path)],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the database exclusively; a line on its stdin ends that."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOCKER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            if process.poll() is None:
                process.communicate("\n", timeout=20)


def release(process: subprocess.Popen[str]) -> None:
    """Let the process of `locked` finish its transaction, and wait until it has."""
    process.communicate("\n", timeout=20)
    assert process.returncode == 0
