"""The side table of leases on a server: others hear of a lease that ends, and may see it or not.

What files and servers have in common is in the conformance suite.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import End, Register
from edgeproxy.store import snapshot_file
from edgeproxy.store.postgres.nodes import PostgresNodes
from edgeproxy.store.postgres.registrations import PostgresRegistrations
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.store.server import PASSWORD, Database
from tests.waiting import wait_until

A = Backend("a", "myapp", "eu", "10.0.0.1", 80, weight=2, hard_limit=150)
NO_TRIGGERS = (
    "DROP TRIGGER IF EXISTS edgeproxy_notify ON backends;"
    "DROP TRIGGER IF EXISTS edgeproxy_notify ON edgeproxy_leases;"
)


def settings(postgres: Database, **more: object) -> PostgresSettings:
    return PostgresSettings(enabled=True, url=PostgresUrl(postgres.url), **more)  # type: ignore[arg-type]


@pytest.fixture
def store(postgres: Database) -> Iterator[PostgresStore]:
    with closing(PostgresStore(settings(postgres))) as store:
        store.ensure()
        yield store


@pytest.fixture
def rows(store: PostgresStore) -> PostgresRegistrations:
    rows = PostgresRegistrations(store.link, "here")
    rows.apply([Register(A, 9)])
    return rows


def test_a_lease_that_ends_is_announced_and_kept_out_of_the_local_file(
    postgres: Database, rows: PostgresRegistrations, tmp_path: Path
) -> None:
    woken = threading.Event()
    kept = tmp_path / "kept"
    with closing(PostgresStore(settings(postgres, snapshot=kept), wake=woken.set)) as other:

        def is_read() -> bool:
            other.read()
            return woken.is_set() and not other.changed()

        wait_until(is_read, "it listens, and nothing has changed")
        assert snapshot_file.load(kept).backends == (A,)
        woken.clear()
        assert rows.apply([End("a", 1000)]) == [True]
        assert woken.wait(20)
        wait_until(other.changed, "the end is seen")
        assert other.read().backends == snapshot_file.load(kept).backends == ()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("", "UPDATE edgeproxy_leases SET ended_at = 5"),
        ("", "INSERT INTO edgeproxy_leases VALUES ('a', 'there', NULL)"),
        ("UPDATE edgeproxy_leases SET ended_at = 5;", "UPDATE edgeproxy_leases SET ended_at = 6"),
        ("", "DROP TRIGGER edgeproxy_leases_end ON backends"),
    ],
)
def test_a_look_finds_a_lease_that_changed_without_word_of_it(
    postgres: Database, store: PostgresStore, before: str, change: str
) -> None:
    postgres.execute(before + NO_TRIGGERS)
    store.read()
    assert not store.changed()
    postgres.execute(change)
    assert store.changed()


def test_the_table_of_an_earlier_version_tells_of_changes_after_the_first_write(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    postgres.execute(
        "DROP TABLE edgeproxy_leases; CREATE TABLE edgeproxy_leases "
        "(id TEXT PRIMARY KEY, home TEXT NOT NULL); GRANT SELECT ON edgeproxy_leases TO PUBLIC;"
        "INSERT INTO edgeproxy_leases VALUES ('a', 'here')"
    )
    triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'edgeproxy_leases'::regclass"
    assert rows.ownership().here == {"a"}
    assert postgres.execute(triggers) == []
    assert rows.apply([Register(A, 9)]) == [False]
    assert postgres.execute(triggers) == [("edgeproxy_notify",)]
    assert postgres.execute("SELECT * FROM edgeproxy_leases") == [("a", "here", "")]
    granted = "SELECT relacl::text LIKE '%,=r/%' FROM pg_class WHERE relname = 'edgeproxy_leases'"
    assert postgres.execute(granted) == [("t",)]


def test_where_nothing_can_announce_a_lease_the_function_is_made(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    postgres.execute("DROP FUNCTION edgeproxy_notify CASCADE")
    assert rows.apply([Register(A, 9)]) == [False]
    assert rows.apply([End("a", 1000)]) == [True]


def test_who_may_not_see_the_leases_sees_all_rows(
    postgres: Database, rows: PostgresRegistrations
) -> None:
    rows.apply([End("a", 1000)])
    user = f"blind_{postgres.name}"
    postgres.execute(
        f"CREATE USER {user} PASSWORD '{PASSWORD}'; GRANT SELECT ON backends TO {user};"
    )
    url = PostgresUrl(postgres.url_as(user))
    with closing(PostgresStore(PostgresSettings(enabled=True, url=url), makes=False)) as store:
        assert store.read().backends == (A,)
        postgres.execute(f"GRANT SELECT ON edgeproxy_leases TO {user}")
        assert store.changed()
        assert store.read().backends == ()


def test_of_an_operator_and_a_backend_that_comes_back_at_once_one_gets_the_id(
    postgres: Database, rows: PostgresRegistrations, store: PostgresStore
) -> None:
    for turn in range(5):
        rows.apply([End("a", 1000)])
        added: list[object] = []

        def add(added: list[object] = added) -> None:
            with closing(PostgresStore(settings(postgres))) as other:
                try:
                    added.append(PostgresNodes(other.link).add(A))
                except Exception as error:  # noqa: BLE001
                    added.append(error)

        adding = threading.Thread(target=add)
        adding.start()
        (outcome,) = rows.apply([Register(A, 9)])
        adding.join()
        is_operators = not isinstance(added[0], Exception)
        leases = postgres.execute("SELECT id FROM edgeproxy_leases WHERE ended_at IS NULL")
        assert len(store.read().backends) == 1, turn
        assert (leases == []) is is_operators, (turn, outcome, added)
        PostgresNodes(store.link).delete("a")
        rows.apply([Register(A, 9)])
