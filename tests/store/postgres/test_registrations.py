"""Registered backends on a server: what only a server does, or others on it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import Deregister, Register
from edgeproxy.errors import StoreError
from edgeproxy.store.postgres.registrations import PostgresRegistrations
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.store.server import PASSWORD, Database
from tests.waiting import wait_until

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)
B = dataclasses.replace(A, id="b")


@pytest.fixture
def rows(postgres: Database) -> Iterator[PostgresRegistrations]:
    settings = PostgresSettings(enabled=True, url=PostgresUrl(postgres.url))
    with closing(PostgresStore(settings)) as store:
        store.ensure()
        yield PostgresRegistrations(store.link, "here")


def test_only_what_is_another_is_written(postgres: Database, rows: PostgresRegistrations) -> None:
    rows.apply([Register(A, 9)])
    written = "SELECT b.xmin, l.xmin FROM backends b JOIN edgeproxy_leases l USING (id)"
    before = postgres.execute(written)
    assert rows.apply([Register(A, 9)]) == [False]
    assert postgres.execute(written) == before
    rows.apply([Register(dataclasses.replace(A, port=81), 9)])
    ((backend, lease),) = postgres.execute(written)
    assert backend != before[0][0]
    assert lease == before[0][1]


def test_a_row_that_an_operator_holds_holds_up_no_other(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    rows.apply([Register(A, 9), Register(B, 9)])
    hold = "BEGIN; UPDATE backends SET weight = 1 WHERE id = 'a'; SELECT pg_sleep(600); COMMIT;"

    def hold_until_cancelled() -> None:
        with suppress(AssertionError):
            postgres.execute(hold)

    holder = threading.Thread(target=hold_until_cancelled)
    holder.start()
    sleeping = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: postgres.execute(sleeping) == [("t",)], "the operator")
    heavier = [dataclasses.replace(each, weight=7) for each in (A, B)]
    first, second = rows.apply([Register(each, 9) for each in heavier])
    assert holder.is_alive()
    postgres.execute(sleeping.replace("count(*) > 0", "pg_cancel_backend(pid)"))
    holder.join()
    assert isinstance(first, StoreError)
    assert "locked" in str(first)
    assert second is False
    assert postgres.execute("SELECT id, weight FROM backends ORDER BY id") == [
        ("a", "2"),
        ("b", "7"),
    ]


def test_a_table_that_is_truncated_has_no_registered_backends(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    rows.apply([Register(A, 9)])
    postgres.execute("TRUNCATE backends")
    assert postgres.execute("SELECT * FROM edgeproxy_leases") == []
    assert rows.apply([Deregister("a")]) == [False]


def test_whoever_may_delete_a_node_may_delete_a_registered_one(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    rows.apply([Register(A, 9)])
    user = f"operator_of_{postgres.name}"
    postgres.execute(
        f"CREATE USER {user} PASSWORD '{PASSWORD}'; "
        f"GRANT SELECT, DELETE ON backends TO {user}; GRANT USAGE ON SCHEMA public TO {user};"
    )
    postgres.execute("DELETE FROM backends WHERE id = 'a'", user)
    assert rows.ownership().here == set()
    assert postgres.execute("SELECT * FROM edgeproxy_leases") == []


def test_a_value_that_the_table_does_not_hold_is_refused(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    postgres.execute("ALTER TABLE backends ALTER app TYPE varchar(4), ALTER weight TYPE text")
    short = dataclasses.replace(A, app="app")
    outcomes = rows.apply([Register(A, 9), Register(short, 9)])
    assert all("refuses this row" in str(each) for each in outcomes)
    postgres.execute("ALTER TABLE backends ALTER weight TYPE integer USING weight::integer")
    first, second = rows.apply([Register(dataclasses.replace(A, id="c"), 9), Register(short, 9)])
    assert "refuses this row: value too long" in str(first)
    assert second is True
