"""The page of `edgeproxy top`: its order, its width, its colours."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.cli.running.top_page import SORTS, page


def backend(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "region": "sa",
        "active": 0,
        "soft_limit": 50,
        "hard_limit": 0,
        "connections": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "rtt_secs": 0.0,
        "errors": 0,
        "state": "eligible",
        **fields,
    }


def status(*backends: dict[str, Any], secs: float = 1.0, **fields: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "engine": "native",
        "region": "sa",
        "uptime_secs": secs,
        "table_version": 1,
        "active": 0,
        "connections": 0,
        "failovers": 0,
        "bindings": 0,
        "refused": {},
        "bytes_in": 0,
        "bytes_out": 0,
        "backends": backends,
        **fields,
    }


def order(text: str) -> list[str]:
    return [line.split()[0] for line in text.split("\n")[6:]]


BEFORE = status(backend("a"), backend("b"), backend("c"))
NOW = status(
    backend("a", region="us", active=1, bytes_in=900, errors=2),
    backend("b", active=9, connections=4, state="circuit open"),
    backend("c", region="ap", connections=9, bytes_out=9, rtt_secs=0.5),
    secs=3.0,
)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("backend", "abc"),
        ("region", "cba"),
        ("load", "bac"),
        ("new", "cba"),
        ("in", "abc"),
        ("out", "cab"),
        ("rtt", "cab"),
        ("errors", "abc"),
        ("state", "bac"),
    ],
)
def test_each_column_can_come_first(sort: str, expected: str) -> None:
    assert order(page(BEFORE, NOW, sort)) == list(expected)
    assert sort in SORTS


def test_every_sort_has_a_key_of_its_own() -> None:
    keys = [key for key, _ in SORTS.values()]
    assert len(set(keys)) == len(keys)
    assert "q" not in keys


@pytest.mark.parametrize("width", [10, 40, 60])
@pytest.mark.parametrize("coloured", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, coloured: bool) -> None:
    text = page(BEFORE, NOW, width=width, coloured=coloured)
    for escape in ("\x1b[31m", "\x1b[33m", "\x1b[0m"):
        text = text.replace(escape, "")
    assert max(map(len, text.split("\n"))) == width


def test_only_what_is_not_well_has_a_colour() -> None:
    now = status(
        backend("well"),
        backend("broken", state="circuit open"),
        backend("going", state="draining"),
        refused={"full": 3},
        secs=2.0,
    )
    lines = {
        line.replace("\x1b[31m", "").split()[0]: line
        for line in page(status(), now, coloured=True).split("\n")
        if line
    }
    painted = {name for name, line in lines.items() if "\x1b" in line}
    assert painted == {"broken", "refused", "\x1b[33mgoing"}
    assert lines["broken"].startswith("\x1b[31m")
    assert "\x1b" not in page(status(), now)


def test_nothing_has_a_colour_where_all_is_well() -> None:
    well = status(backend("well"), refused={"full": 3})
    assert "\x1b" not in page(well, {**well, "uptime_secs": 2.0}, coloured=True)
