"""A published table knows every app that clients can be led to, and which name leads where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.config import load as config
from edgeproxy.config.load import Config
from edgeproxy.core.admission.admission import Admission, AdmissionSettings
from edgeproxy.core.admission.affinity import AffinitySettings
from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.destination import NOTHING, Own
from edgeproxy.core.backends.ejection import EjectionSettings
from edgeproxy.core.backends.local_overrides import Overlay
from edgeproxy.core.geo.origin import Origin
from edgeproxy.core.metrics import Metrics
from edgeproxy.engine.choice import make_engine
from edgeproxy.engine.contract import Engine, EngineSettings
from edgeproxy.gate.gate import AdmissionGate
from edgeproxy.gate.preamble import PreambleParser
from edgeproxy.process.publisher import Publisher
from edgeproxy.process.removal import Removal
from edgeproxy.store.snapshot import Snapshot
from edgeproxy.store.sqlite.store import SqliteStore
from tests.events import events_of
from tests.store.editing import documented, execute

ROWS = Snapshot((Backend("a", "web", "sa", "10.0.0.1", 80),), routes={"www.example.com": "web"})


class Published:
    """A publisher whose configuration and overlays a test changes."""

    def __init__(self, admission: Admission, engine: Engine) -> None:
        self.admission = admission
        self.config = Config()
        self.overlays: dict[str, Overlay] = {}
        removal = Removal(engine, lambda: "keep", lambda _function: None)
        self.own = NOTHING
        self.metrics = Metrics()
        self.publisher = Publisher(
            admission,
            removal,
            lambda: self.overlays,
            lambda: self.config,
            lambda: self.own,
            self.metrics,
        )

    def configure(self, listeners: str, routes: str = "") -> None:
        """Name these listeners and routes from now on."""
        self.config = config.load(
            {"EDGEPROXY_LISTENERS": listeners, "EDGEPROXY_ROUTES": routes}
        ).config

    def scopes(self) -> frozenset[str]:
        """Return the scopes of the table in force."""
        self.admission.adopt()
        return self.admission.table.scopes


@pytest.fixture
def published() -> Iterator[Published]:
    admission = Admission(AdmissionSettings(), AffinitySettings(), EjectionSettings(), Origin)
    gate = AdmissionGate(admission, Metrics(), PreambleParser({}, admission.server_names), 1.0)
    engine = make_engine(EngineSettings(kind="portable"), gate, lambda _error: None, with_tls=False)
    yield Published(admission, engine)
    engine.stop()


def test_without_listeners_by_name_nothing_is_ranked_for_names(published: Published) -> None:
    published.configure("127.0.0.1:0=web,127.0.0.1:0=tls:db", "*=other")
    published.publisher.publish(ROWS)
    assert published.scopes() == {"web", "db"}
    assert published.admission.server_names().apps == set()


def test_names_of_the_configuration_come_before_those_of_the_database(
    published: Published,
) -> None:
    published.configure("127.0.0.1:0=sni", "fixed.example=other")
    published.publisher.publish(
        Snapshot(routes={"www.example.com": "web", "fixed.example": "web", "*": "rest"})
    )
    names = published.admission.server_names()
    found = [names.find(each) for each in ("www.example.com", "fixed.example", None)]
    assert found == ["web", "other", "rest"]
    assert published.scopes() == {"web", "other", "rest"}


def test_another_configuration_counts_for_the_same_rows(published: Published) -> None:
    published.configure("127.0.0.1:0=sni")
    published.publisher.publish(ROWS)
    published.configure("127.0.0.1:0=sni,127.0.0.1:0=db", "www.example.com=other")
    published.overlays = {"a": Overlay(weight=7)}
    published.publisher.publish_again()
    assert published.admission.server_names().find("www.example.com") == "other"
    assert {"other", "db"} <= published.scopes()
    assert [each.weight for each in published.publisher.backends] == [7]


def test_listeners_of_before_are_served_to_the_end(published: Published) -> None:
    """A client may still be read on one, and one that cannot be changed stays open."""
    published.configure("127.0.0.1:0=mail,127.0.0.1:0=sni")
    published.publisher.publish(ROWS)
    published.configure("127.0.0.1:0=db")
    for _ in range(3):
        published.publisher.publish(ROWS)
        assert published.scopes() == {"mail", "web", "db"}
        assert published.admission.server_names().find("www.example.com") == "web"


HERE = Own({("0.0.0.0", 80): "the listener"}, frozenset({"10.0.0.1"}))


def test_a_row_that_leads_to_this_proxy_is_skipped_for_as_long_as_it_does(
    published: Published,
) -> None:
    rows = (*ROWS.backends, Backend("b", "web", "sa", "10.0.0.2", 80))
    published.publisher.publish(Snapshot(rows))
    assert published.publisher.backends == rows
    assert not published.publisher.follow_own()
    published.own = HERE
    with events_of("store") as events:
        assert published.publisher.follow_own()
        published.publisher.publish_again()
        assert not published.publisher.follow_own()
        assert published.publisher.backends == rows[1:]
        published.own = replace(HERE, hosts=frozenset({"10.0.0.1", "10.0.0.7"}))
        assert not published.publisher.follow_own()  # nothing else leads here
        published.own = NOTHING
        assert published.publisher.follow_own()
        assert published.publisher.backends == rows
    (skipped,) = events.named("row_skipped")
    assert skipped["id"] == "a"
    assert "the listener of this proxy" in str(skipped["reason"])
    assert published.metrics.rows_skipped == 1


def test_the_sessions_of_a_row_that_comes_to_lead_here_are_closed(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[frozenset[str]] = []
    monkeypatch.setattr(Removal, "close_at", lambda _, addresses: closed.append(addresses))
    published.publisher.publish(ROWS)
    published.own = HERE
    published.publisher.publish_again()
    published.publisher.publish_again()
    assert closed == [frozenset({ROWS.backends[0].address})]


def test_an_edit_of_a_row_that_leads_here_is_not_told_again(published: Published) -> None:
    published.own = HERE
    with events_of("store") as events:
        for weight in (1, 2, 3):
            published.publisher.publish(Snapshot((replace(ROWS.backends[0], weight=weight),)))
        published.publisher.publish(Snapshot((replace(ROWS.backends[0], wg_ip="127.0.0.1"),)))
    first, moved = (str(each["reason"]) for each in events.named("row_skipped"))
    assert first.startswith("wg_ip 10.0.0.1")
    assert moved.startswith("wg_ip 127.0.0.1")
    assert [row.id for row in published.publisher.leading_here] == ["a"]


def test_what_the_feed_tells_leaves_out_the_rows_that_lead_here(
    published: Published, tmp_path: Path
) -> None:
    published.own = HERE
    store = SqliteStore(documented(tmp_path / "routing.db"))
    execute(store.path, "UPDATE backends SET wg_ip = '10.0.0.1', port = 80 WHERE region = 'sa'")
    feed = published.publisher.feed(store)
    with events_of("store") as events:
        feed.first()
    (told,) = events.named("table_published")
    assert (told["backends"], told["skipped"]) == (2, 1)
    assert [row.id for row in feed.skipped] == ["sa-node-1"]
    store.close()


def test_a_removed_row_is_not_complained_of(published: Published) -> None:
    published.own = HERE
    published.publisher.publish(Snapshot((replace(ROWS.backends[0], deleted=True),)))
    assert published.metrics.rows_skipped == 0
