"""Taking nodes from one routing database to another: all of them or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import End as EndLease
from edgeproxy.core.backends.registration import Register
from edgeproxy.errors import StoreError
from edgeproxy.store.migration import Done, End, PostgresEnd, SqliteEnd, migrate
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from tests.store.conformance.kinds import Kind, PostgresKind, SqliteKind
from tests.store.server import Database

ROUTES = "CREATE TABLE IF NOT EXISTS edgeproxy_routes (pattern TEXT PRIMARY KEY, app TEXT);"


class Side:
    def __init__(self, kind: Kind, end: End) -> None:
        self.kind = kind
        self.end = end


@pytest.fixture
def file(tmp_path: Path) -> Side:
    path = tmp_path / "routing.db"
    return Side(SqliteKind(path), SqliteEnd(path))


@pytest.fixture
def server(postgres: Database) -> Side:
    settings = PostgresSettings(enabled=True, url=PostgresUrl(postgres.url))
    return Side(PostgresKind(postgres), PostgresEnd(settings))


@pytest.fixture(params=["to postgres", "to sqlite"])
def sides(request: pytest.FixtureRequest, file: Side, server: Side) -> tuple[Side, Side]:
    """Where nodes come from, with two of them and a server name; where they go, without any."""
    source, target = (file, server) if request.param == "to postgres" else (server, file)
    source.kind.store().ensure()
    source.kind.insert("a", weight=3)
    source.kind.insert("b", deleted=1, healthy=0)
    source.kind.execute(ROUTES + "INSERT INTO edgeproxy_routes VALUES ('www.example.com', 'web')")
    return source, target


def take(sides: tuple[Side, Side], *, overwrite: bool = False, skip_faulty: bool = False) -> Done:
    source, target = sides
    try:
        return migrate(source.end, target.end, overwrite=overwrite, skip_faulty=skip_faulty)
    finally:
        source.end.close()
        target.end.close()


def test_all_nodes_and_server_names_arrive_as_they_are(sides: tuple[Side, Side]) -> None:
    source, target = sides
    assert take(sides) == Done(2, 0, 0, 1, 0, 0)
    assert target.kind.rows() == source.kind.rows()
    assert target.kind.store().read() == source.kind.store().read()
    assert take(sides) == Done(0, 0, 2, 0, 0, 0)


def test_a_withheld_backend_is_left_behind(sides: tuple[Side, Side]) -> None:
    source, target = sides
    rows = source.kind.registrations("here")
    rows.apply(
        [Register(Backend(name, "myapp", "eu", "10.0.0.1", 80), most=9) for name in ("c", "d")]
    )
    rows.apply([EndLease("c", at=5)])
    take(sides)
    assert {row[0] for row in target.kind.rows()} == {"a", "b", "d"}


def test_what_is_there_stays_and_what_differs_is_refused_unless_told(
    sides: tuple[Side, Side],
) -> None:
    source, target = sides
    target.kind.store().ensure()
    target.kind.insert("a", weight=9)
    target.kind.insert("z")
    before = target.kind.rows()
    with pytest.raises(StoreError, match=r"has 1 of these nodes .*\('a'\): nothing was changed"):
        take(sides)
    assert target.kind.rows() == before
    assert take(sides, overwrite=True) == Done(1, 1, 0, 1, 0, 0)
    assert target.kind.rows() == [*source.kind.rows(), before[1]]


def test_a_faulty_node_is_left_behind_only_if_told(sides: tuple[Side, Side]) -> None:
    source, target = sides
    source.kind.insert("bad", port=70000)
    target.kind.store().ensure()
    with pytest.raises(StoreError, match=r"has 1 faulty nodes \('bad'\): correct or delete"):
        take(sides)
    assert target.kind.rows() == []
    assert take(sides, skip_faulty=True) == Done(2, 0, 0, 1, 1, 0)
    assert [row[0] for row in target.kind.rows()] == ["a", "b"]


def test_countries_are_kept_where_there_is_a_column_for_them(file: Side, server: Side) -> None:
    server.kind.store().ensure()
    server.kind.insert("a", country="BR")
    assert take((server, file)) == Done(1, 0, 0, 0, 0, 1)
    file.kind.execute("ALTER TABLE backends ADD COLUMN country TEXT")
    assert take((server, file), overwrite=True) == Done(0, 1, 0, 0, 0, 0)
    (backend,) = file.kind.store().read().backends
    assert backend.country == "BR"


def test_thousands_of_nodes_arrive(file: Side, server: Side) -> None:
    file.kind.store().ensure()
    file.kind.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO backends SELECT 'n-' || i, 'myapp', 'sa', '10.0.0.1', 80, 1, 1, 1, 1, 0 FROM n"
    )
    assert take((file, server)).added == 5000
    assert len(server.kind.rows()) == 5000
