"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, on a port of its own.

The programs of PostgreSQL refuse to run as root; they run as `postgres` then. Where they are not
installed, what needs them is skipped and says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import wait_until

USER = "edgeproxy"
PASSWORD = "s3cret-w0rd"
OPTIONS = (
    "-c fsync=off -c full_page_writes=off -c max_connections=60 "
    "-c shared_buffers=32MB -c listen_addresses=127.0.0.1 -c autovacuum=off"
)


def program(name: str) -> str:
    """Return where a program of PostgreSQL is; skip without it."""
    found = shutil.which(name)
    if found is None:
        for each in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")):
            found = str(each)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name} (./task packages installs it)")
    return found


class Server:
    """One cluster. It is made by the constructor, and runs from `start` on.

    Attributes:
        port: On 127.0.0.1; the same after a restart.
    """

    def __init__(self) -> None:
        self._initdb = program("initdb")
        self._folder = Path(tempfile.mkdtemp(prefix="edgeproxy-pg-"))
        self._databases = 0
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            self._initdb,
            *("-D", str(self.data), "-U", USER, f"--pwfile={password}", "--no-sync"),
            *("-A", "scram-sha-256", "-E", "UTF8", "--no-locale"),
        )

    @property
    def data(self) -> Path:
        return self._folder / "data"

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def _run(self, *words: str) -> None:
        as_user = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
        done = subprocess.run(
            [*as_user, *words], cwd=self._folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _control(self, *words: str) -> None:
        with open(self._folder / "pg_ctl.out", "w", encoding="utf-8") as out:
            as_user = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
            done = subprocess.run(
                [*as_user, program("pg_ctl"), "-D", str(self.data), *words],
                cwd=self._folder,
                stdout=out,  # no pipe: the server would inherit it
                stderr=out,
                check=False,
            )
        assert done.returncode == 0, (self._folder / "pg_ctl.out").read_text()

    def start(self) -> None:
        """Answer from now on."""
        options = f"-k {self._folder} -p {self.port} {OPTIONS}"
        self._control("-w", "-o", options, "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        """End as an operator does it, with an end for every client."""
        self._control("-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """End every process of it at once, as a lost machine does."""
        processes = self._processes()
        for each in processes:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        wait_until(lambda: not any(map(_exists, processes)), "the end of the server")
        # Where nobody reaps orphans, these would name processes that seem to be alive.
        for lock in (self.data / "postmaster.pid", *self._folder.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def pause(self) -> None:
        """Answer nothing, but keep every connection."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        self._signal(signal.SIGCONT)

    def _processes(self) -> list[int]:
        main = (self.data / "postmaster.pid").read_text().split()[0]
        words = ["pgrep", "-P", main]
        children = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        return [int(main), *map(int, children.split())]

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes():
            with suppress(ProcessLookupError):
                os.kill(each, number)

    def close(self) -> None:
        """End, and leave nothing behind."""
        if (self.data / "postmaster.pid").exists():
            self.go_on()
            self._control("-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- databases --------------------------------------------------------------------

    def new_database(self) -> Database:
        """Return an empty one."""
        self._databases += 1
        name = f"routing{self._databases}"
        Database(self, "postgres").execute(f"CREATE DATABASE {name}")
        return Database(self, name)


class Database:
    """One database of a server; edited by `psql`, as people do it."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    @property
    def url(self) -> str:
        return self.url_as(USER)

    def url_as(self, user: str, password: str = PASSWORD) -> str:
        """Return the URL for a user."""
        return f"postgres://{user}:{password}@127.0.0.1:{self.server.port}/{self.name}"

    def execute(self, sql: str, user: str = USER) -> list[tuple[str, ...]]:
        """Run SQL with psql; return what it prints, row by row."""
        done = subprocess.run(
            [
                *(program("psql"), "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"),
                *("-d", self.url_as(user)),
            ],
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def _exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
