"""Edits of the table of server names."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.errors import StoreError, UsageError
from edgeproxy.store.sqlite.routes import Routes
from edgeproxy.store.sqlite.store import SqliteStore
from tests.store.editing import documented, execute


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return documented(tmp_path / "routing.db")


def test_a_database_without_the_table_has_no_routes(path: Path) -> None:
    assert Routes(path).read() == []


def test_a_route_is_set_read_by_proxies_and_removed(path: Path) -> None:
    routes = Routes(path)
    assert routes.set("WWW.Example.com.", "web") == "www.example.com"
    routes.set("*", "other")
    assert routes.read() == [("*", "other"), ("www.example.com", "web")]
    assert SqliteStore(path).read().routes == {"*": "other", "www.example.com": "web"}
    assert routes.remove("www.example.com") == "www.example.com"
    assert routes.read() == [("*", "other")]


def test_a_name_leads_to_one_app(path: Path) -> None:
    routes = Routes(path)
    routes.set("www.example.com", "web")
    routes.set("www.example.com", "shop")
    assert routes.read() == [("www.example.com", "shop")]


@pytest.mark.parametrize(("name", "app"), [("", "web"), ("a b", "web"), ("*.", "web"), ("*", "")])
def test_what_is_no_route_changes_nothing(path: Path, name: str, app: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        Routes(path).set(name, app)
    assert Routes(path).read() == []


def test_what_is_not_there_cannot_be_removed(path: Path) -> None:
    with pytest.raises(StoreError, match="no route of"):
        Routes(path).remove("a.example.com")


def test_rows_of_no_use_are_skipped_by_name(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE edgeproxy_routes (pattern TEXT, app TEXT);"
        "INSERT INTO edgeproxy_routes VALUES ('a b', 'web'), ('good.example.com', 'web'),"
        " (NULL, 'x'), ('GOOD.example.com', 'other')",
    )
    snapshot = SqliteStore(path).read()
    assert snapshot.routes in ({"good.example.com": "web"}, {"good.example.com": "other"})
    assert len(snapshot.skipped) == 3
    assert all("edgeproxy_routes" in each.id for each in snapshot.skipped)
