"""Looks for changes at tables of others' making."""

from __future__ import annotations

from edgeproxy.core.backends.rows import COLUMNS, COUNTRY
from edgeproxy.store.postgres.store import PostgresStore
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.store.conformance.kinds import PostgresKind
from tests.store.server import PASSWORD, Database


def test_who_may_see_only_the_documented_columns_finds_changes(postgres: Database) -> None:
    kind = PostgresKind(postgres)
    kind.store().ensure()
    kind.insert("one")
    user, names = f"clerk{postgres.name}", ", ".join((*COLUMNS, COUNTRY))
    postgres.execute(
        f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}';"
        f"GRANT SELECT ({names}) ON backends TO {user}"
    )
    url = PostgresUrl(postgres.url_as(user))
    store = PostgresStore(PostgresSettings(enabled=True, url=url))
    assert len(store.read().backends) == 1
    assert not store.changed()
    kind.execute("UPDATE backends SET weight = 9")
    assert store.changed()
    store.close()
    kind.close()


def test_a_column_of_any_name_hides_no_change(postgres: Database) -> None:
    kind = PostgresKind(postgres)
    store = kind.store()
    store.ensure()
    kind.insert("one")
    kind.execute("ALTER TABLE backends ADD COLUMN t TEXT, ADD COLUMN backends TEXT")
    store.read()
    kind.execute("UPDATE backends SET t = 'x'")
    assert not store.changed()  # nobody reads it
    kind.execute("UPDATE backends SET weight = 9")
    assert store.changed()
    kind.close()
