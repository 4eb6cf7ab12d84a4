"""Edits of the table of server names."""

from __future__ import annotations

import pytest

from edgeproxy.errors import StoreError, UsageError
from tests.store.conformance.kinds import Kind


def test_a_database_without_the_table_has_no_routes(kind: Kind) -> None:
    assert kind.routes().read() == []


def test_a_route_is_set_read_by_proxies_and_removed(kind: Kind) -> None:
    routes = kind.routes()
    assert routes.set("WWW.Example.com.", "web") == "www.example.com"
    routes.set("*", "other")
    assert routes.read() == [("*", "other"), ("www.example.com", "web")]
    assert kind.store().read().routes == {"*": "other", "www.example.com": "web"}
    assert routes.remove("www.example.com") == "www.example.com"
    assert routes.read() == [("*", "other")]


def test_a_name_leads_to_one_app(kind: Kind) -> None:
    routes = kind.routes()
    routes.set("www.example.com", "web")
    routes.set("www.example.com", "shop")
    assert routes.read() == [("www.example.com", "shop")]


@pytest.mark.parametrize(("name", "app"), [("", "web"), ("a b", "web"), ("*.", "web"), ("*", "")])
def test_what_is_no_route_changes_nothing(kind: Kind, name: str, app: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        kind.routes().set(name, app)
    assert kind.routes().read() == []


def test_what_is_not_there_cannot_be_removed(kind: Kind) -> None:
    with pytest.raises(StoreError, match="no route of"):
        kind.routes().remove("a.example.com")
