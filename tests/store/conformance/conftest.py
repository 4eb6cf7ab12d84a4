"""Each test here runs over every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.conformance.kinds import Kind, PostgresKind, SqliteKind


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """A place for a routing database, without one."""
    make: Callable[[], Kind] = (
        (lambda: SqliteKind(tmp_path / "routing.db"))
        if request.param == "sqlite"
        else (lambda: PostgresKind(request.getfixturevalue("postgres")))
    )
    kind = make()
    yield kind
    kind.close()


@pytest.fixture
def kind(empty: Kind) -> Kind:
    """A routing database with the three documented nodes."""
    empty.store().ensure()
    for region, number in (("sa", 1), ("us", 2), ("eu", 3)):
        empty.insert(f"{region}-node-1", region=region, wg_ip=f"10.50.{number}.1")
    return empty
