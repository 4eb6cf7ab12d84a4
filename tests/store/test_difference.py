"""What differs between two tables is named with its values, and bounded."""

from __future__ import annotations

from dataclasses import fields, replace

from edgeproxy.core.backends.backend import Backend
from edgeproxy.store.difference import MAX_NAMED, difference
from edgeproxy.store.snapshot import Snapshot

ONE = Backend("a", "web", "sa", "10.0.0.1", 80)
OTHER_VALUES: dict[str, object] = {
    "app": "api",
    "region": "us",
    "wg_ip": "fd00::1",
    "port": 81,
    "healthy": False,
    "weight": 2,
    "soft_limit": 1,
    "hard_limit": 2,
    "deleted": True,
    "country": "BR",
}


def test_equal_tables_differ_in_nothing() -> None:
    assert difference(Snapshot((ONE,)), Snapshot((ONE,))) == {}


def test_every_column_is_told_with_both_values() -> None:
    assert OTHER_VALUES.keys() | {"id"} == {field.name for field in fields(Backend)}
    other = replace(ONE, **OTHER_VALUES)  # type: ignore[arg-type]
    assert difference(Snapshot((ONE,)), Snapshot((other,))) == {
        "changed": "a app web→api region sa→us wg_ip 10.0.0.1→fd00::1 port 80→81 healthy 1→0 "
        "weight 1→2 soft_limit 100→1 hard_limit 200→2 deleted 0→1 country -→BR"
    }


def test_what_comes_and_goes_is_told_of_backends_and_of_names() -> None:
    before = Snapshot((ONE,), routes={"old.example": "web", "same.example": "web"})
    after = Snapshot((replace(ONE, id="b"),), routes={"same.example": "web", "new.example": "api"})
    assert difference(before, after) == {
        "added": "b",
        "removed": "a",
        "routes": "old.example web→-, new.example -→api",
    }


def test_no_field_names_more_than_a_few() -> None:
    many = tuple(replace(ONE, id=f"n{number}") for number in range(MAX_NAMED + 2))
    told = difference(Snapshot(), Snapshot(many, routes=dict.fromkeys(map(str, range(99)), "web")))
    assert told["added"].split(", ")[-2:] == [f"n{MAX_NAMED - 1}", "and 2 more"]
    assert told["routes"].endswith(f", and {99 - MAX_NAMED} more")
    exactly = difference(Snapshot(many[:MAX_NAMED]), Snapshot())
    assert exactly["removed"].count(",") == MAX_NAMED - 1
