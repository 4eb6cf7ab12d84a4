"""Strategies for keys, values and cells, and short ways to make some."""

from __future__ import annotations

from hypothesis import strategies as st

from edgeproxy.core.cluster.cells import ALIVE, GONE, LIFE, Cell
from edgeproxy.core.cluster.clock import VOID
from edgeproxy.core.cluster.rows import BACKENDS, ROUTES, TABLES, Edit, Key, Value

ORIGINS = tuple(bytes([number]) * 16 for number in range(1, 4))
ROUTE = Key(ROUTES, "a.example")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
keys = st.builds(Key, st.sampled_from(sorted(TABLES)), texts)


def value_tuples(size: int = 5) -> st.SearchStrategy[tuple[Value, ...]]:
    return st.lists(values, max_size=size).map(tuple)


cells = st.builds(
    Cell,
    keys,
    st.sampled_from(["place", "state", "weight", "later"]),
    st.integers(1, VOID - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 1 << 40),
    value_tuples(),
)

_GROUPS = tuple(TABLES[BACKENDS].groups)
BACKEND = Key(BACKENDS, "one")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Cell, ...]]:
    """Return what several origins have written to one row: each write has all of its cells."""
    writes = []
    stamps: dict[bytes, int] = {}
    for seq in range(1, draw(st.integers(1, 7)) + 1):
        origin = draw(st.sampled_from(ORIGINS))
        stamp = stamps.get(origin, 0) + draw(st.integers(1, 4))
        stamps[origin] = stamp
        kind = draw(st.sampled_from(["insert", "update", "delete"]))
        groups: dict[str, tuple[Value, ...]]
        if kind == "delete":
            groups = {LIFE: GONE}
        elif kind == "update":
            chosen = draw(st.sets(st.sampled_from(_GROUPS), min_size=1))
            groups = dict.fromkeys(sorted(chosen), (seq,))
        else:
            groups = {LIFE: ALIVE, **dict.fromkeys(_GROUPS, (seq,))}
        writes.append(
            tuple(
                Cell(BACKEND, group, stamp, origin, seq, written)
                for group, written in groups.items()
            )
        )
    return writes


def route(app: str | None, pattern: str = ROUTE.id) -> Edit:
    """Return an edit that sets, or deletes, a route."""
    return Edit(Key(ROUTES, pattern), None if app is None else {"app": app})
