"""The shadow keeps rows and what is under way, durably."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.cluster.bridge.shadow import Outbox, Pending, Shadow
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, ROUTES, TABLES, Edit, Key, id_of

values = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
rows = st.fixed_dictionaries(dict.fromkeys(TABLES[BACKENDS].columns, values))


@pytest.fixture
def shadow(tmp_path: Path) -> Shadow:
    return Shadow(tmp_path / "shadow.db")


def reopened(shadow: Shadow) -> Shadow:
    shadow.close()
    return Shadow(shadow.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows)
def test_values_keep_their_type(shadow: Shadow, row: dict[str, object]) -> None:
    key = Key(BACKENDS, "a")
    shadow.put([(key, row)])  # type: ignore[list-item]
    found = shadow.row(key)
    assert found == row
    assert {name: type(each) for name, each in found.items()} == {
        name: type(each) for name, each in row.items()
    }


def test_edits_change_the_columns_they_name(shadow: Shadow) -> None:
    key = Key(BACKENDS, "a")
    row = dict.fromkeys(TABLES[BACKENDS].columns, 1)
    shadow.apply([Edit(key, row), Edit(key, {"weight": 5})])
    assert shadow.row(key) == {**row, "weight": 5}
    shadow.apply([Edit(key, None)])
    assert (shadow.row(key), shadow.count(BACKENDS)) == (None, 0)


def test_a_key_of_two_columns_names_one_row(shadow: Shadow) -> None:
    one, other = Key(LEASES, id_of(("a", "sa"))), Key(LEASES, id_of(("a", "us")))
    lease = {"country": None, "ended_at": 5}
    shadow.put([(one, lease), (other, lease)])
    shadow.put([(one, None)])
    assert shadow.keys_of(LEASES) == {other}


def test_what_is_under_way_survives_a_death(shadow: Shadow) -> None:
    outbox = Outbox(
        "t", [Edit(Key(ROUTES, "a.example"), {"app": "x"}), Edit(Key(BACKENDS, "é"), None)]
    )
    pending = Pending("m", {Key(ROUTES, "a.example"): {"app": "x"}, Key(BACKENDS, "b"): None})
    with shadow.transaction():
        shadow.outbox, shadow.pending = outbox, pending
        shadow.position, shadow.file = "17", "1:2"
    found = reopened(shadow)
    assert (found.outbox, found.pending) == (outbox, pending)
    assert (found.position, found.file) == ("17", "1:2")
    with found.transaction():
        found.outbox = found.pending = None
    assert (found.outbox, found.pending) == (None, None)


def test_a_transaction_that_fails_changes_nothing(shadow: Shadow) -> None:
    def fail() -> None:
        with shadow.transaction():
            shadow.position = "17"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert shadow.position == ""


def test_earlier_markers_are_known(shadow: Shadow) -> None:
    for marker in ("one", "two"):
        with shadow.transaction():
            shadow.set_marker(marker)
    assert (shadow.marker, shadow.knows("one"), shadow.knows("three")) == ("two", True, False)
