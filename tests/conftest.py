"""Where nothing may be missing (`EDGEPROXY_TESTS_COMPLETE=1`), a skipped test has failed."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import hypothesis
import pytest

from tests.store.server import Database, Server

hypothesis.settings.register_profile("edgeproxy", deadline=None)  # speed is measured in bench/
hypothesis.settings.load_profile("edgeproxy")

# Hundreds of processes are started. Each would compile all that it imports, and each worker of the
# suite all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Where nginx, haproxy and runuser are, also for a user whose shell does not look there.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


MAY_BE_MISSING = "EDGEPROXY_TEST_CORROSION"
"""What no package registry has, so that it may be missing everywhere."""


def pytest_collection_finish() -> None:
    """Keep what is imported from the garbage collector: it would walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("EDGEPROXY_TESTS_COMPLETE"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if MAY_BE_MISSING not in str(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} must not be skipped here: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Every test ends what it has started, whatever happens; its folder tells whose it is."""
    mark = f"TESTS_OF={os.getpid()}"
    name, _, value = mark.partition("=")
    os.environ[name] = value  # all descendants inherit it
    yield
    left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if has(pid, mark)]
    where = [f"{command_of(pid)} in {folder_of(pid)}" for pid in left]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"left running: {where}"


def has(pid: int, mark: str) -> bool:
    """Return whether a process other than this one was started with this in its environment."""
    with suppress(OSError):
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return "?"


def folder_of(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")
    return "?"


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    with closing(Server()) as server:
        server.start()
        yield server


@pytest.fixture
def postgres(_server: Server) -> Database:
    """An empty database on a PostgreSQL server that is not to be disturbed."""
    return _server.new_database()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A PostgreSQL server that the test may disturb."""
    with closing(Server()) as server:
        server.start()
        yield server
