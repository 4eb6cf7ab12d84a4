"""Where nothing may be missing (`EDGEPROXY_TESTS_COMPLETE=1`), a skipped test has failed."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing

import hypothesis
import pytest

from tests.store.server import Database, Server

hypothesis.settings.register_profile("edgeproxy", deadline=None)  # speed is measured in bench/
hypothesis.settings.load_profile("edgeproxy")

# Where nginx, haproxy and runuser are, also for a user whose shell does not look there.
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("EDGEPROXY_TESTS_COMPLETE"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not be skipped here: {reason}"
    return report


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
