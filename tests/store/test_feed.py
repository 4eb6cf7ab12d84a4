"""The feed publishes what the database says and keeps the last good table through its faults."""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from edgeproxy.core.metrics import Metrics
from edgeproxy.errors import StoreError
from edgeproxy.store.feed import MAX_NAMED, Feed
from edgeproxy.store.sqlite.database import ROUTES_TABLE
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import DOCUMENTED_TABLE, documented, execute, locked, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeproxy.core.backends.backend import Backend
    from edgeproxy.store.snapshot import Snapshot

BAD_ROW = "INSERT INTO backends VALUES ('bad', 'a', 'sa', '10.0.0.1', {}, 1, 1, 1, 1, 0);"


class Events(logging.Handler):
    """Collects events as (name, fields) until they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._collected: list[tuple[str, dict[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._collected.append((record.getMessage(), record.__dict__["fields"]))

    def take(self) -> list[tuple[str, dict[str, object]]]:
        collected, self._collected = self._collected, []
        return collected

    def names(self) -> list[str]:
        return [name for name, _ in self.take()]


class Proxy:
    """What a proxy has of its database: a feed and the tables that it published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.metrics = Metrics()
        self.tables: list[tuple[Backend, ...]] = []
        self.feed = Feed(
            self.store, lambda snapshot: self.tables.append(snapshot.backends), self.metrics
        )

    def ids(self) -> list[str]:
        return [backend.id for backend in self.tables[-1]]


@pytest.fixture
def events() -> Iterator[Events]:
    logger = logging.getLogger("edgeproxy")
    handler, level = Events(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return documented(tmp_path / "routing.db")


@pytest.fixture
def proxy(path: Path, events: Events) -> Iterator[Proxy]:
    """A proxy that has published the documented rows, with no events waiting."""
    proxy = Proxy(path)
    proxy.feed.first()
    assert events.take() == [("table_published", {"backends": 3, "skipped": 0})]
    yield proxy
    proxy.store.close()


def test_the_first_table_is_published_at_once(proxy: Proxy) -> None:
    assert proxy.ids() == ["sa-node-1", "us-node-1", "eu-node-1"]


def told_of(events: Events) -> dict[str, object]:
    """Return what the line about the one table that was published says differs."""
    [fields] = [fields for name, fields in events.take() if name == "table_published"]
    return {name: text for name, text in fields.items() if name not in ("backends", "skipped")}


def test_a_table_says_what_differs_from_the_last_one(
    proxy: Proxy, path: Path, events: Events
) -> None:
    for edit, said in (
        (
            "UPDATE backends SET healthy = 0 WHERE id = 'sa-node-1'",
            {"changed": "sa-node-1 healthy 1→0"},
        ),
        (
            "UPDATE backends SET weight = 7, port = 81 WHERE id = 'us-node-1'",
            {"changed": "us-node-1 port 8080→81 weight 2→7"},
        ),
        ("DELETE FROM backends WHERE id = 'eu-node-1'", {"removed": "eu-node-1"}),
        (BAD_ROW.format(80), {"added": "bad"}),
        (
            f"{ROUTES_TABLE}; INSERT INTO edgeproxy_routes VALUES ('a.example', 'web')",
            {"routes": "a.example -→web"},
        ),
    ):
        execute(path, edit)
        assert proxy.feed.poll()
        assert told_of(events) == said


def test_a_line_about_a_table_is_bounded(proxy: Proxy, path: Path, events: Events) -> None:
    rows = ", ".join(
        f"('n{number:03d}', 'a', 'sa', '10.0.0.1', 80, 1, 1, 1, 1, 0)" for number in range(300)
    )
    execute(path, f"INSERT INTO backends VALUES {rows}")
    assert proxy.feed.poll()
    first = ", ".join(f"n{number:03d}" for number in range(10))
    assert told_of(events) == {"added": f"{first}, and 290 more"}
    execute(path, "UPDATE backends SET weight = 5 WHERE id LIKE 'n%'")
    assert proxy.feed.poll()
    changed = str(told_of(events)["changed"])
    assert changed.endswith("n009 weight 1→5, and 290 more")
    execute(path, "DELETE FROM backends WHERE id LIKE 'n%'")
    assert proxy.feed.poll()
    assert told_of(events) == {"removed": f"{first}, and 290 more"}


def test_a_table_whose_publication_failed_is_published_by_the_next_poll(path: Path) -> None:
    tables: list[Snapshot] = []

    def publish(snapshot: Snapshot) -> None:
        if fails:
            raise RuntimeError("a fault")
        tables.append(snapshot)

    fails = False
    feed = Feed(SqliteStore(path), publish, Metrics())
    feed.first()
    execute(path, "DELETE FROM backends WHERE region = 'sa'")
    fails = True
    with pytest.raises(RuntimeError):
        feed.poll()
    fails = False
    assert feed.poll()
    assert [len(each.backends) for each in tables] == [3, 2]
    assert not feed.poll()


EDITS = (
    "UPDATE backends SET weight = 3 WHERE id = 'many-7'",
    "UPDATE backends SET weight = weight + 1",
    "DELETE FROM backends WHERE id LIKE 'many-%'",
    "CREATE TABLE other (a)",
)


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_not_needed_any_more_is_freed_in_small_parts(tmp_path: Path, edit: str) -> None:
    """To free all of a table at once would stop every thread for tens of milliseconds."""
    path = documented(tmp_path / "routing.db")
    execute(
        path,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO"
        " backends SELECT 'many-' || i, 'app', 'eu', '10.0.0.1', i, 1, 1, 500, 1000, 0 FROM n",
    )
    in_use: list[int] = []
    store = SqliteStore(path, lambda: in_use.append(sys.getallocatedblocks()))
    in_force: dict[str, object] = {}
    feed = Feed(store, lambda snapshot: in_force.update(latest=snapshot), Metrics())
    feed.first()
    execute(path, edit)
    gc.disable()
    try:
        in_use.clear()
        feed.poll()
        in_use.append(sys.getallocatedblocks())
    finally:
        gc.enable()
    most_freed = max(before - after for before, after in pairwise(in_use))
    assert most_freed < 1000, "of the 4,000 backends, each of several blocks"


def test_a_deleted_database_keeps_the_table_is_not_made_anew_and_recovers(
    proxy: Proxy, path: Path, events: Events
) -> None:
    path.unlink()
    assert [proxy.feed.poll() for _ in range(3)] == [False] * 3
    assert not path.exists()
    [(name, fields)] = events.take()
    assert (name, fields["path"]) == ("database_unreadable", path)
    assert str(fields["reason"]).startswith("does not exist: ")
    assert proxy.metrics.reload_errors == 3
    documented(path)
    assert not proxy.feed.poll()  # the same rows
    assert events.take() == [("database_recovered", {"path": path})]
    assert len(proxy.tables) == 1
    path.unlink()
    proxy.feed.poll()
    assert events.names() == ["database_unreadable"]  # a new episode


def test_a_locked_database_keeps_the_table_and_recovers_by_itself(
    proxy: Proxy, path: Path, events: Events
) -> None:
    with locked(path) as process:
        assert not proxy.feed.poll()
        assert events.names() == ["database_unreadable"]
        assert not proxy.feed.poll()
        release(process)
    assert not proxy.feed.poll()
    assert events.names() == ["database_recovered"]
    assert proxy.metrics.reload_errors == 2
    execute(path, "DELETE FROM backends WHERE id = 'sa-node-1'")
    assert proxy.feed.poll()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000])
def test_a_spoiled_file_keeps_the_table_until_it_is_restored(
    proxy: Proxy, path: Path, events: Events, tmp_path: Path, content: bytes
) -> None:
    shutil.copy(path, tmp_path / "copy.db")
    path.write_bytes(content)
    assert [proxy.feed.poll() for _ in range(3)] == [False] * 3
    assert events.names() == ["database_unreadable"]
    execute(tmp_path / "copy.db", "DELETE FROM backends WHERE id = 'us-node-1'")
    (tmp_path / "copy.db").replace(path)
    assert proxy.feed.poll()
    assert events.names() == ["table_published", "database_recovered"]
    assert proxy.ids() == ["sa-node-1", "eu-node-1"]


def test_each_reason_is_reported_once_in_an_episode(
    proxy: Proxy, path: Path, events: Events
) -> None:
    for _ in range(2):
        path.unlink()
        proxy.feed.poll()
        path.write_bytes(b"garbage" * 1000)
        proxy.feed.poll()
    assert events.names() == ["database_unreadable"] * 2


@pytest.mark.parametrize("script", ["", "CREATE TABLE notes (text TEXT)"])
def test_a_start_without_the_table_is_a_start_with_no_backends(
    tmp_path: Path, events: Events, script: str
) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(b"")
    execute(path, script)
    proxy = Proxy(path)
    proxy.feed.first()
    assert proxy.tables == [()]
    (name, fields), (published, _) = events.take()
    assert (name, published) == ("database_without_table", "table_published")
    assert "edgeproxy db init --force" in str(fields["reason"])
    assert [proxy.feed.poll() for _ in range(2)] == [False, False]
    assert events.take() == []
    execute(path, DOCUMENTED_TABLE)
    proxy.feed.poll()
    assert events.names() == ["database_recovered"]
    execute(path, "INSERT INTO backends VALUES ('a', 'a', 'sa', '10.0.0.1', 80, 1, 1, 1, 1, 0)")
    assert proxy.feed.poll()
    assert proxy.ids() == ["a"]
    proxy.store.close()


def test_a_start_without_a_usable_database_fails_and_publishes_nothing(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "missing.db")
    with pytest.raises(StoreError, match="does not exist"):
        proxy.feed.first()
    proxy.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="is damaged or not an SQLite database"):
        proxy.feed.first()
    assert proxy.tables == []


def test_a_start_waits_for_a_locked_database(path: Path) -> None:
    proxy = Proxy(path)
    with locked(path) as process:
        with pytest.raises(StoreError, match="is locked by another program"):
            proxy.feed.first(wait_secs=0.1)
        timer = threading.Timer(0.3, release, [process])
        timer.start()
        proxy.feed.first()
        timer.join()
    assert len(proxy.tables) == 1
    proxy.store.close()


def test_rows_skipped_at_the_start_are_reported(path: Path, events: Events) -> None:
    execute(path, BAD_ROW.format("NULL"))
    proxy = Proxy(path)
    proxy.feed.first()
    assert events.names() == ["row_skipped", "table_published"]
    assert proxy.metrics.rows_skipped == 1
    proxy.store.close()


def test_of_very_many_faulty_rows_some_are_named(path: Path, events: Events) -> None:
    """A table of nothing else would fill the log, and nothing is followed meanwhile."""
    rows = ", ".join(f"('{number}')" for number in range(MAX_NAMED + 7))
    execute(path, f"INSERT INTO backends (id) VALUES {rows}")
    proxy = Proxy(path)
    proxy.feed.first()
    names = events.names()
    assert names == ["row_skipped"] * MAX_NAMED + ["rows_skipped", "table_published"]
    assert proxy.metrics.rows_skipped == MAX_NAMED + 7
    proxy.store.close()
