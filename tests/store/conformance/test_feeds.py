"""The feed publishes what a store says, and keeps the last good table through its faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.metrics import Metrics
from edgeproxy.store.feed import Feed
from edgeproxy.store.snapshot import Snapshot
from tests.events import Events, events_of
from tests.store.conformance.kinds import Kind


class Fed:
    """What a proxy has of its database: a feed and the tables that it published."""

    def __init__(self, kind: Kind, events: Events) -> None:
        self._events = events
        self.metrics = Metrics()
        self.tables: list[tuple[Backend, ...]] = []
        self.routes: list[dict[str, str]] = []
        self.feed = Feed(kind.store(), self._publish, self.metrics)
        self.feed.first()
        assert self.told() == ["table_published"]

    def _publish(self, snapshot: Snapshot) -> None:
        self.tables.append(snapshot.backends)
        self.routes.append(snapshot.routes)

    def told(self) -> list[str]:
        """Return the names of the events since the last time."""
        names = [name for _, name, _ in self._events.all]
        self._events.all.clear()
        return names

    def ids(self) -> set[str]:
        return {backend.id for backend in self.tables[-1]}


@pytest.fixture
def fed(kind: Kind) -> Iterator[Fed]:
    with events_of("store") as events:
        yield Fed(kind, events)


def test_only_what_is_different_is_published(fed: Fed, kind: Kind) -> None:
    assert fed.ids() == {"sa-node-1", "us-node-1", "eu-node-1"}
    assert not fed.feed.poll()
    kind.execute("UPDATE backends SET weight = weight; CREATE TABLE notes (text TEXT)")
    assert not fed.feed.poll()
    assert len(fed.tables) == 1
    assert fed.told() == []
    kind.execute("UPDATE backends SET weight = 9 WHERE id = 'sa-node-1'")
    assert fed.feed.poll()
    assert {each.weight for each in fed.tables[1]} == {9, 2}
    assert fed.told() == ["table_published"]


def test_a_faulty_row_is_reported_once_per_fault(fed: Fed, kind: Kind) -> None:
    kind.insert("bad", port=70000)
    assert not fed.feed.poll()
    assert fed.told() == ["row_skipped"]
    kind.execute("UPDATE backends SET weight = 9 WHERE id = 'sa-node-1'")
    assert fed.feed.poll()
    assert fed.told() == ["table_published"]
    kind.execute("UPDATE backends SET port = 0 WHERE id = 'bad'")
    fed.feed.poll()
    assert fed.told() == ["row_skipped"]
    kind.execute("UPDATE backends SET port = 80 WHERE id = 'bad'")
    assert fed.feed.poll()
    kind.execute("UPDATE backends SET port = 0 WHERE id = 'bad'")
    assert fed.feed.poll()
    assert fed.told() == ["table_published", "row_skipped", "table_published"]
    assert fed.metrics.rows_skipped == 3


def test_a_table_that_is_taken_away_keeps_the_backends_and_recovers(fed: Fed, kind: Kind) -> None:
    kind.execute("ALTER TABLE backends RENAME TO elsewhere")
    assert [fed.feed.poll() for _ in range(3)] == [False] * 3
    assert fed.told() == ["database_unreadable"]
    assert fed.metrics.reload_errors == 3
    kind.execute("ALTER TABLE elsewhere RENAME TO backends")
    assert not fed.feed.poll()  # the same rows
    assert fed.told() == ["database_recovered"]
    kind.execute("DELETE FROM backends WHERE id = 'us-node-1'")
    assert fed.feed.poll()
    assert fed.ids() == {"sa-node-1", "eu-node-1"}


def test_deleting_all_rows_is_what_the_operator_wrote_and_worth_a_warning(
    fed: Fed, kind: Kind
) -> None:
    kind.execute("DELETE FROM backends")
    assert fed.feed.poll()
    assert fed.ids() == set()
    assert fed.told() == ["table_lost_all_backends", "table_published"]


def test_server_names_are_given_on(fed: Fed, kind: Kind) -> None:
    kind.execute("CREATE TABLE IF NOT EXISTS edgeproxy_routes (pattern TEXT, app TEXT)")
    kind.execute("INSERT INTO edgeproxy_routes VALUES ('www.example.com', 'web')")
    assert fed.feed.poll()
    assert fed.routes == [{}, {"www.example.com": "web"}]
    assert fed.tables[1] == fed.tables[0]
    assert not fed.feed.poll()
