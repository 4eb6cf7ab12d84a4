"""The store on a PostgreSQL server: it hears of changes, and survives what servers do."""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import StoreError
from edgeproxy.store.postgres import store as store_module
from edgeproxy.store.postgres.nodes import PostgresNodes
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.events import Events, events_of
from tests.store.conformance.kinds import PostgresKind
from tests.store.server import PASSWORD, Database, Server
from tests.waiting import wait_until

INSERT = """INSERT INTO backends (id, app, region, country, wg_ip, port)
    SELECT 'n-' || n, 'myapp', 'sa', 'BR', '10.50.1.1', 8080 FROM generate_series(1, {}) n"""
DOCUMENTED = (
    "SELECT column_name, data_type, is_nullable, coalesce(column_default, '') "
    "FROM information_schema.columns WHERE table_name = 'backends' ORDER BY ordinal_position"
)

Open = Callable[..., tuple[PostgresStore, threading.Semaphore]]


@pytest.fixture
def events() -> Iterator[Events]:
    with events_of("store") as events:
        yield events


@pytest.fixture
def opened() -> Iterator[Open]:
    """Makes stores that listen, with what counts how often they want a look."""
    with ExitStack() as stack:

        def open_store(url: str, **settings: object) -> tuple[PostgresStore, threading.Semaphore]:
            woken = threading.Semaphore(0)
            chosen = PostgresSettings(enabled=True, url=PostgresUrl(url))
            chosen = replace(chosen, **settings)  # type: ignore[arg-type]
            store = PostgresStore(chosen, wake=woken.release)
            stack.callback(store.close)
            return store, woken

        yield open_store


def wait_for(woken: threading.Semaphore, secs: float = 20.0) -> None:
    assert woken.acquire(timeout=secs), f"nobody was woken within {secs} s"


def settle(store: PostgresStore, woken: threading.Semaphore) -> None:
    """Read, and wait until the store listens."""
    store.read()
    wait_for(woken)
    catch_up(store)


def catch_up(store: PostgresStore) -> None:
    """Read until nothing has changed: word of an earlier edit may still come."""

    def is_read() -> bool:
        store.read()
        return not store.changed()

    wait_until(is_read, "nothing has changed")


def fault(store: PostgresStore) -> str:
    """Return what is said of a look that fails, or "" for one that does not."""
    try:
        store.changed()
    except StoreError as error:
        return str(error)
    return ""


# -- the schema -----------------------------------------------------------------------


def test_the_schema_is_the_documented_one(postgres: Database, opened: Open) -> None:
    store, _ = opened(postgres.url)
    assert store.ensure()
    now = "CURRENT_TIMESTAMP"
    assert postgres.execute(DOCUMENTED) == [
        ("id", "text", "NO", ""),
        ("app", "text", "NO", ""),
        ("region", "text", "NO", ""),
        ("country", "text", "NO", ""),
        ("wg_ip", "text", "NO", ""),
        ("port", "integer", "NO", ""),
        ("healthy", "integer", "NO", "1"),
        ("weight", "integer", "NO", "1"),
        ("soft_limit", "integer", "NO", "100"),
        ("hard_limit", "integer", "NO", "150"),
        ("deleted", "integer", "NO", "0"),
        ("created_at", "timestamp with time zone", "YES", now),
        ("updated_at", "timestamp with time zone", "YES", now),
    ]
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'backends'"
    assert {row[0].partition(" USING ")[2] for row in postgres.execute(indexes)} == {
        "btree (id)",
        "btree (healthy) WHERE (deleted = 0)",
        "btree (region) WHERE (deleted = 0)",
    }


def test_of_many_who_make_the_schema_at_once_one_does(postgres: Database) -> None:
    stores = [PostgresKind(postgres).store() for _ in range(8)]
    made: list[bool] = []
    threads = [threading.Thread(target=lambda s=s: made.append(s.ensure())) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert sorted(made) == [False] * 7 + [True]


def test_a_user_who_may_only_read_is_enough_where_the_table_is(
    postgres: Database, opened: Open, events: Events
) -> None:
    store, _ = opened(postgres.url)
    store.ensure()
    postgres.execute(
        "DROP FUNCTION edgeproxy_notify CASCADE; DROP TABLE edgeproxy_routes;"
        f"CREATE ROLE reader{postgres.name} LOGIN PASSWORD '{PASSWORD}';"
        f"GRANT SELECT ON backends TO reader{postgres.name};" + INSERT.format(3)
    )
    other, _ = opened(postgres.url_as(f"reader{postgres.name}"))
    assert len(other.read().backends) == 3
    (told,) = events.named("schema_incomplete")
    assert told["missing"] == (
        "edgeproxy_routes, edgeproxy_notify(), the trigger of backends, "
        "the trigger of edgeproxy_routes"
    )
    with pytest.raises(StoreError, match="does not allow it"):
        PostgresNodes(other.link).set_weight("n-1", 3)


def test_without_the_right_to_make_a_missing_table_it_is_said(
    postgres: Database, opened: Open
) -> None:
    postgres.execute(f"CREATE ROLE poor{postgres.name} LOGIN PASSWORD '{PASSWORD}'")
    store, _ = opened(postgres.url_as(f"poor{postgres.name}"))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"does not allow it .*permission denied"):
            store.read()


# -- being told -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE backends SET weight = 7 WHERE id = 'n-1'",
        INSERT.format(1).replace("n-", "new-"),
        "DELETE FROM backends WHERE id = 'n-1'",
        "TRUNCATE backends",
        "INSERT INTO edgeproxy_routes VALUES ('www.example.com', 'web')",
    ],
)
def test_every_kind_of_change_is_notified(postgres: Database, opened: Open, sql: str) -> None:
    store, woken = opened(postgres.url)
    store.ensure()
    postgres.execute(INSERT.format(3))
    settle(store, woken)
    postgres.execute(sql)
    wait_for(woken)
    assert store.changed()
    catch_up(store)


def test_many_edits_are_read_together(
    postgres: Database, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are made until the look that the first of them asks for."""
    store, woken = opened(postgres.url)
    store.ensure()
    settle(store, woken)
    nodes = PostgresNodes(store.link)
    due: list[tuple[float, Callable[[], object]]] = []
    heard = threading.Semaphore(0)
    noticed = store.link._noticed
    assert noticed is not None

    def hear(is_change: bool) -> None:
        noticed(is_change)
        heard.release()

    monkeypatch.setattr(store_module, "SOON_SECS", 3600.0)
    monkeypatch.setattr(store.link, "_noticed", hear)
    monkeypatch.setattr(store.link, "call_later", lambda *later: due.append(later))
    for number in range(50):
        nodes.add(Backend(f"n-{number}", "myapp", "sa", "10.0.0.1", 80))
    for _ in range(50):
        assert heard.acquire(timeout=20)
    ((secs, look),) = due
    assert secs == 3600.0
    while woken.acquire(blocking=False):
        pass
    look()
    assert woken.acquire(blocking=False)
    assert len(store.read().backends) == 50
    assert not store.changed()


def test_connections_stay_within_their_bounds(postgres: Database, opened: Open) -> None:
    store, woken = opened(postgres.url, min_connections=3, max_connections=4)
    settle(store, woken)
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'edgeproxy' "
        f"AND datname = '{postgres.name}'"
    )

    def connections() -> int:
        return int(postgres.execute(count)[0][0])

    wait_until(lambda: connections() == 3, "three connections")
    nodes = PostgresNodes(store.link)
    most: list[int] = []
    threads = [
        threading.Thread(
            target=nodes.add, args=(Backend(f"n-{number}", "myapp", "sa", "10.0.0.1", 80),)
        )
        for number in range(40)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most.append(connections())
    assert max([*most, connections()]) <= 4
    assert len(store.read().backends) == 40
    store.close()
    wait_until(lambda: connections() == 0, "no connection")


# -- faults ---------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_goes_is_named_and_followed_when_it_is_back(
    own_server: Server, opened: Open, end: str
) -> None:
    database = own_server.new_database()
    store, woken = opened(database.url, connect_timeout_secs=1.0)
    store.ensure()
    database.execute(INSERT.format(3))
    settle(store, woken)
    getattr(own_server, end)()

    wait_until(lambda: "cannot be reached" in fault(store), "the fault")
    assert PASSWORD not in fault(store)
    wait_until(lambda: store.link.down is not None, "the listener's fault")
    with pytest.raises(StoreError, match="cannot be reached"):
        store.changed()
    with pytest.raises(StoreError, match="cannot be reached"):
        PostgresNodes(store.link).set_weight("n-1", 3)
    while woken.acquire(blocking=False):
        pass
    own_server.start()
    wait_for(woken)
    assert not store.changed()  # the same rows
    database.execute("UPDATE backends SET weight = 9")
    wait_for(woken)
    assert {each.weight for each in store.read().backends} == {9}
    assert PostgresNodes(store.link).set_weight("n-1", 3).values["weight"] == 3


def test_another_host_takes_over(own_server: Server, opened: Open) -> None:
    with closing(Server()) as other:
        other.start()
        first, second = own_server.new_database(), other.new_database()
        assert first.name == second.name
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{other.port}"
        url = first.url.replace(f"127.0.0.1:{own_server.port}", hosts)
        store, woken = opened(url, connect_timeout_secs=1.0)
        store.ensure()
        first.execute(INSERT.format(3))
        PostgresKind(second).store().ensure()
        second.execute(INSERT.format(5))
        settle(store, woken)
        own_server.kill()
        wait_for(woken)
        assert store.changed()
        assert len(store.read().backends) == 5
        second.execute("DELETE FROM backends")
        wait_for(woken)
        assert store.read().backends == ()


def test_a_host_that_takes_edits_is_preferred(own_server: Server, opened: Open) -> None:
    """The first host is read-only, as a standby is."""
    with closing(Server()) as other:
        other.start()
        first, second = own_server.new_database(), other.new_database()
        PostgresKind(second).store().ensure()
        PostgresKind(first).store().ensure()
        own_server.stop()
        (own_server.data / "standby.signal").touch()
        own_server.start()
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{other.port}"
        url = first.url.replace(f"127.0.0.1:{own_server.port}", hosts)
        store, woken = opened(url, connect_timeout_secs=1.0)
        settle(store, woken)
        PostgresNodes(store.link).add(Backend("a", "myapp", "sa", "10.0.0.1", 80))
        assert second.execute("SELECT id FROM backends") == [("a",)]
        other.stop()  # to read, the standby is good enough
        wait_until(lambda: store.link.down is None and not woken.acquire(False), "the standby")

        def reads_standby() -> bool:
            try:
                return store.read().backends == ()
            except StoreError:
                return False

        wait_until(reads_standby, "what the standby has")
        with pytest.raises(StoreError, match="is it a standby"):
            PostgresNodes(store.link).add(Backend("b", "myapp", "sa", "10.0.0.1", 80))
        other.start()
        wait_until(lambda: len(store.read().backends) == 1, "the primary", 30)


def test_a_mute_host_takes_no_more_than_its_timeout(postgres: Database, opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        address = f"127.0.0.1:{postgres.server.port}"
        url = postgres.url.replace(address, f"127.0.0.1:{port},{address}")
        store, _ = opened(url, connect_timeout_secs=0.3)
        begun = time.monotonic()
        store.read()
        assert time.monotonic() - begun >= 0.3
        alone, _ = opened(
            postgres.url.replace(address, f"127.0.0.1:{port}"), connect_timeout_secs=0.3
        )
        with pytest.raises(StoreError, match=r"did not answer within 0.3 s .*CONNECT_TIMEOUT_SECS"):
            alone.read()


def test_a_slow_query_ends_after_its_timeout(postgres: Database, opened: Open) -> None:
    store, woken = opened(postgres.url, query_timeout_secs=0.3)
    store.ensure()
    settle(store, woken)
    postgres.execute(
        "ALTER TABLE backends RENAME TO real; CREATE VIEW backends AS "
        "SELECT real.* FROM real, pg_sleep(600)"
    )
    with pytest.raises(StoreError, match=r"did not finish a query within 0.3 s .*QUERY_TIMEOUT"):
        store.changed()
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%hashtext%' AND state = 'active'"
    )
    wait_until(lambda: postgres.execute(busy) == [("0",)] or busy, "the end of it on the server")
    postgres.execute("DROP VIEW backends; ALTER TABLE real RENAME TO backends")
    assert not store.changed()


def test_a_server_that_hangs_is_given_up(own_server: Server, opened: Open) -> None:
    database = own_server.new_database()
    store, woken = opened(database.url, query_timeout_secs=0.3, connect_timeout_secs=0.3)
    store.ensure()
    settle(store, woken)
    own_server.pause()
    with pytest.raises(StoreError, match="did not"):
        store.changed()
    own_server.go_on()
    wait_until(lambda: not fault(store), "the end of the fault")


def test_an_edit_of_a_locked_row_changes_nothing(postgres: Database, opened: Open) -> None:
    store, _ = opened(postgres.url, query_timeout_secs=0.6)
    store.ensure()
    postgres.execute(INSERT.format(1))
    locker = threading.Thread(
        target=postgres.execute,
        args=("BEGIN; UPDATE backends SET weight = 5; SELECT pg_sleep(1.5); COMMIT",),
    )
    locker.start()
    active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_until(lambda: postgres.execute(active) != [("0",)], "the lock")
    with pytest.raises(StoreError, match="is locked by another program: nothing was changed, try"):
        PostgresNodes(store.link).set_weight("n-1", 9)
    assert len(store.read().backends) == 1  # who reads does not wait
    locker.join()
    assert store.read().backends[0].weight == 5


@pytest.mark.parametrize(
    ("part", "other", "said"),
    [
        (PASSWORD, "wr0ng-secret", "refuses us .*password authentication failed"),
        ("/routing", "/nowhere", "has no such database"),
        ("edgeproxy:", "nobody:", "refuses us"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(
    postgres: Database,
    opened: Open,
    caplog: pytest.LogCaptureFixture,
    part: str,
    other: str,
    said: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    store, _ = opened(postgres.url.replace(part, other))
    with pytest.raises(StoreError, match=said) as error:
        store.read()
    told = str(error.value) + caplog.text
    assert PASSWORD not in told
    assert "wr0ng-secret" not in told


# -- the local file -------------------------------------------------------------------


def test_a_start_without_the_server_is_served_from_the_file(
    own_server: Server, opened: Open, events: Events, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    database = own_server.new_database()
    store, woken = opened(database.url, snapshot=kept)
    store.ensure()
    database.execute(INSERT.format(3))
    settle(store, woken)
    before = store.read()
    stamp = kept.stat().st_mtime_ns
    store.read()
    assert kept.stat().st_mtime_ns == stamp  # nothing else to keep
    store.close()
    own_server.stop()

    again, woken = opened(database.url, snapshot=kept)
    assert again.read() == before
    assert [each["backends"] for each in events.named("snapshot_used")] == [3]
    with pytest.raises(StoreError, match="cannot be reached"):
        again.changed()
    with pytest.raises(StoreError, match="cannot be reached"):
        again.read()  # only a start needs it
    own_server.start()
    wait_for(woken)
    assert again.changed()
    assert again.read() == before


def test_a_table_that_is_not_there_does_not_take_away_what_was_kept(
    own_server: Server, opened: Open, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    database = own_server.new_database()
    store, _ = opened(database.url, snapshot=kept)
    store.ensure()
    database.execute(INSERT.format(3))
    store.read()
    store.close()
    database.execute("DROP TABLE backends")
    own_server.stop()
    again, woken = opened(database.url, snapshot=kept)
    assert len(again.read().backends) == 3
    own_server.start()
    wait_for(woken)
    with pytest.raises(StoreError, match="has no table `backends`"):
        again.read()


def test_a_start_makes_no_table_where_backends_were_kept(
    postgres: Database, opened: Open, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    store, _ = opened(postgres.url, snapshot=kept)
    assert store.read().backends == ()
    store.close()
    postgres.execute("DROP TABLE backends")
    store, _ = opened(postgres.url, snapshot=kept)
    assert store.read().backends == ()  # made anew: none were kept
    postgres.execute(INSERT.format(3))
    assert len(store.read().backends) == 3
    store.close()
    postgres.execute("ALTER TABLE backends RENAME TO elsewhere")
    store, _ = opened(postgres.url, snapshot=kept)
    assert len(store.read().backends) == 3
    postgres.execute("ALTER TABLE elsewhere RENAME TO backends")
    postgres.execute("DELETE FROM backends WHERE id = 'n-1'")
    assert len(store.read().backends) == 2


def test_without_a_file_a_start_fails_and_says_both(
    postgres: Database, opened: Open, tmp_path: Path
) -> None:
    store, _ = opened(postgres.url.replace(PASSWORD, "x" * 9), snapshot=tmp_path / "kept")
    with pytest.raises(StoreError, match=r"refuses us.*kept cannot be read: No such file"):
        store.read()


def test_a_file_that_cannot_be_written_does_not_matter(
    postgres: Database, opened: Open, events: Events, tmp_path: Path
) -> None:
    store, _ = opened(postgres.url, snapshot=tmp_path / "missing" / "kept")
    assert store.read().backends == ()
    assert not store.changed()
    assert len(events.named("snapshot_not_written")) == 1
    (tmp_path / "missing").mkdir()
    assert not store.changed()
    assert (tmp_path / "missing" / "kept").exists()


# -- size -----------------------------------------------------------------------------


def test_a_table_of_100_000_rows_is_read_within_its_memory(postgres: Database) -> None:
    store = PostgresKind(postgres).store()
    store.ensure()
    postgres.execute(INSERT.format(100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    snapshot = store.read()
    assert len(snapshot.backends) == 100_000
    assert not store.changed()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024
    store.close()


ENDLESS = """ALTER TABLE backends RENAME TO kept; CREATE VIEW backends AS
    SELECT 'n-' || n AS id, 'a' AS app, 'sa' AS region, '10.50.1.1' AS wg_ip, 80 AS port,
    1 AS healthy, 1 AS weight, 1 AS soft_limit, 1 AS hard_limit, 0 AS deleted
    FROM generate_series(1, 1000000000000) n"""


def test_a_view_that_never_ends_is_a_fault(postgres: Database) -> None:
    store = PostgresStore(
        PostgresSettings(enabled=True, url=PostgresUrl(postgres.url), query_timeout_secs=1.0)
    )
    store.ensure()
    postgres.execute(ENDLESS)
    with closing(store), pytest.raises(StoreError, match=r"within 1 s|does it end"):
        store.read()


@pytest.mark.parametrize("name", ["sslrootcert", "passfile"])
def test_a_file_of_the_url_that_is_a_fifo_is_a_fault(
    postgres: Database, tmp_path: Path, name: str
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    url = PostgresUrl(f"{postgres.url}{'&' if '?' in postgres.url else '?'}{name}={fifo}")
    with (
        closing(PostgresStore(PostgresSettings(enabled=True, url=url))) as store,
        pytest.raises(StoreError, match=f"{name}=.*not a regular file"),
    ):
        store.read()
