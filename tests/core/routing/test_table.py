"""A table groups its backends and sorts the groups by distance from a client."""

from __future__ import annotations

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.live_state import LiveStates
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.routing import table as routing
from edgeproxy.core.routing.server_names import ServerNames
from edgeproxy.core.routing.table import RoutingTable


def row(backend_id: str, region: str, country: str | None = None, **values: object) -> Backend:
    """Return a backend."""
    return Backend(
        backend_id,
        "myapp",
        region,
        "10.0.0.1",
        80,
        country=country,
        **values,  # type: ignore[arg-type]
    )


def told(table: RoutingTable, origin: Origin, scope: str = "") -> list[tuple[float, set[str]]]:
    """Return the tiers for this client as distances and ids."""
    return [
        (
            tier.distance,
            {each.backend.id for ranking in tier.rankings for each in ranking.members},
        )
        for tier in table.tiers(scope, origin)
    ]


def test_tiers_are_country_region_pop_and_rest() -> None:
    table = RoutingTable(
        [
            row("br", "sa", "BR"),
            row("sa", "sa"),
            row("ar", "sa", "AR"),
            row("us", "us"),
            row("eu", "eu", "DE"),
            row("moon", "moon"),
        ],
        LiveStates(),
        pop_region="us",
    )
    assert told(table, Origin("", "BR", "sa")) == [
        (0.0, {"br", "sa"}),
        (50.0, {"ar"}),
        (100.0, {"us"}),
        (200.0, {"eu", "moon"}),
    ]
    assert told(table, Origin("")) == [
        (100.0, {"us"}),
        (200.0, {"br", "sa", "ar", "eu", "moon"}),
    ]
    assert told(table, Origin("", None, "moon"))[0] == (0.0, {"moon"})


def test_only_usable_backends_with_weight_are_ranked_but_all_are_known() -> None:
    table = RoutingTable(
        [
            row("sick", "sa", healthy=False),
            row("gone", "sa", deleted=True),
            row("idle", "sa", weight=0),
            row("fine", "sa"),
        ],
        LiveStates(),
        pop_region="sa",
    )
    assert told(table, Origin("")) == [(100.0, {"fine"})]
    assert set(table.candidates) == {"sick", "gone", "idle", "fine"}


def test_a_scope_nobody_serves_has_no_tiers() -> None:
    table = RoutingTable([row("a", "sa")], LiveStates(), "sa", scopes=["myapp"])
    assert told(table, Origin(""), "myapp") == [(100.0, {"a"})]
    assert told(table, Origin(""), "other") == []


def test_the_apps_of_server_names_are_scopes() -> None:
    names = ServerNames({"www.example.com": "myapp", "*": "rest"})
    table = RoutingTable([row("a", "sa")], LiveStates(), "sa", ["web"], names)
    assert table.server_names is names
    assert table.scopes == {"web", "myapp", "rest"}
    assert told(table, Origin(""), "myapp") == [(100.0, {"a"})]


def test_cached_tiers_are_bounded() -> None:
    table = RoutingTable([row("a", "sa")], LiveStates(), "sa")
    for number in range(routing.MAX_CACHED_TIERS + 10):
        table.tiers("", Origin("", None, f"r{number}"))
    assert len(table._tiers) <= routing.MAX_CACHED_TIERS
