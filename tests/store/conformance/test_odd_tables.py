"""Tables that are made in another way than documented: an edit is done whole, or refused.

What is refused is said with its reason, and no other row changes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeproxy.core.backends.backend import Backend
from edgeproxy.core.backends.registration import Deregister, Edit, Outcome, Register
from edgeproxy.errors import StoreError
from edgeproxy.store.edits import NodeEdits, RefusedError, UnknownNodeError
from tests.store.conformance.kinds import Kind, PostgresKind

NEW = Backend("new", "myapp", "sa", "10.50.9.9", 8080, weight=2)
COLUMNS = (
    "id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER, healthy INTEGER, "
    "weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0"
)


def make(kind: Kind, **changed: str) -> None:
    """Make a table whose columns are the documented ones but for these declarations."""
    declarations = [
        next((text for name, text in changed.items() if each.startswith(f"{name} ")), each)
        for each in COLUMNS.split(", ")
    ]
    kind.has_country = False
    kind.execute(f"CREATE TABLE backends ({', '.join(declarations)});")


def make_case_blind(kind: Kind) -> None:
    """Make a table in which 'NEW' is the same id as 'new'."""
    if not isinstance(kind, PostgresKind):
        make(kind, id="id TEXT PRIMARY KEY COLLATE NOCASE")
        return
    kind.execute(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    make(kind, id="id TEXT COLLATE blind PRIMARY KEY")


def make_real(kind: Kind) -> None:
    make(kind, weight="weight DOUBLE PRECISION")


def make_generated(kind: Kind) -> None:
    make(kind, deleted="deleted INTEGER GENERATED ALWAYS AS (0) STORED")


def make_view(kind: Kind) -> None:
    kind.has_country = False
    kind.execute(
        f"CREATE TABLE kept ({COLUMNS}); CREATE TABLE more ({COLUMNS});"
        "CREATE VIEW backends AS SELECT * FROM kept UNION ALL SELECT * FROM more;"
    )


def put(kind: Kind, *edits: Edit) -> list[Outcome]:
    return kind.registrations().apply(edits or [Register(NEW, 10)])


ODD: dict[str, tuple[Callable[[Kind], None], str]] = {
    "another type": (make_real, "weight 2.0 is not allowed: a whole number"),
    "generated": (make_generated, "deleted"),
    "view": (make_view, "view"),
}
"""How a table is made that can hold no row as it is asked for, and what is said of that."""


@pytest.mark.parametrize("name", ODD)
def test_a_row_that_a_table_cannot_hold_is_refused_with_the_reason(empty: Kind, name: str) -> None:
    made, reason = ODD[name]
    made(empty)
    (outcome,) = put(empty)
    assert isinstance(outcome, RefusedError)
    assert reason in str(outcome)
    with pytest.raises(RefusedError, match=reason):
        empty.nodes().add(NEW)
    assert empty.rows() == []


@pytest.mark.parametrize("name", ODD)
def test_an_edit_that_a_table_cannot_hold_is_refused(empty: Kind, name: str) -> None:
    made, _ = ODD[name]
    made(empty)
    if name == "view":
        empty.execute("INSERT INTO kept VALUES ('a','myapp','sa','10.50.1.1',80,1,1,1,1,0)")
    elif name == "generated":
        columns = "id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit"
        empty.execute(
            f"INSERT INTO backends ({columns}) VALUES ('a','myapp','sa','10.50.1.1',80,1,1,1,1)"
        )
    else:
        empty.insert("a")
    before = empty.rows()
    edits: dict[str, Callable[[NodeEdits], object]] = {
        "another type": lambda nodes: nodes.set_weight("a", 5),
        "generated": lambda nodes: nodes.remove("a"),
        "view": lambda nodes: nodes.disable("a"),
    }
    with pytest.raises(RefusedError):
        edits[name](empty.nodes())
    assert empty.rows() == before


def test_an_id_that_differs_only_in_case_changes_no_other_row(empty: Kind) -> None:
    make_case_blind(empty)
    empty.insert("node")
    before = empty.rows()
    twin = Backend("NODE", "other", "us", "10.50.9.9", 1)
    (outcome,) = put(empty, Register(twin, 10))
    assert isinstance(outcome, RefusedError)
    with pytest.raises(RefusedError):
        empty.nodes().add(twin)
    edits: list[Callable[[NodeEdits], object]] = [
        lambda nodes: nodes.disable("NODE"),
        lambda nodes: nodes.set_weight("NODE", 9),
        lambda nodes: nodes.delete("NODE"),
    ]
    for edit in edits:
        with pytest.raises(UnknownNodeError):
            edit(empty.nodes())
    assert empty.rows() == before


def test_of_two_registered_ids_that_differ_only_in_case_each_keeps_its_own(empty: Kind) -> None:
    make_case_blind(empty)
    upper = Backend("NEW", "other", "us", "10.50.9.9", 1)
    first, second = put(empty, Register(NEW, 10), Register(upper, 10))
    assert first is True
    assert isinstance(second, RefusedError)
    before = empty.rows()
    assert put(empty, Deregister("NEW")) == [False]
    assert empty.rows() == before
    assert put(empty, Deregister("new")) == [True]
    assert empty.rows() == []


def keep_rows(kind: Kind) -> None:
    """Let a trigger keep every row that is deleted."""
    if isinstance(kind, PostgresKind):
        kind.execute(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN NULL; END $$;"
            "CREATE TRIGGER keep BEFORE DELETE ON backends FOR EACH ROW EXECUTE FUNCTION keep()"
        )
        return
    kind.execute("CREATE TRIGGER keep BEFORE DELETE ON backends BEGIN SELECT RAISE(IGNORE); END;")


def test_a_row_that_a_trigger_keeps_is_not_said_to_be_gone(empty: Kind) -> None:
    make(empty)
    assert put(empty) == [True]
    keep_rows(empty)
    (outcome,) = put(empty, Deregister("new"))
    assert isinstance(outcome, RefusedError)
    with pytest.raises(RefusedError, match="keeps it"):
        empty.nodes().delete("new")
    assert len(empty.rows()) == 1
    assert empty.registrations().ownership().here == {"new"}


def test_a_constraint_refuses_an_edit_and_is_named(empty: Kind) -> None:
    make(empty, weight="weight INTEGER CHECK (weight < 10)")
    empty.insert("a")
    before = empty.rows()
    with pytest.raises(RefusedError, match=r"(?i)check constraint"):
        empty.nodes().set_weight("a", 10)
    assert empty.rows() == before


def test_a_trigger_may_still_choose_other_values(empty: Kind) -> None:
    make(empty)
    if isinstance(empty, PostgresKind):
        empty.execute(
            "CREATE FUNCTION cap() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.weight = least(NEW.weight, 1); RETURN NEW; END $$;"
            "CREATE TRIGGER cap BEFORE INSERT ON backends FOR EACH ROW EXECUTE FUNCTION cap()"
        )
    else:
        empty.execute(
            "CREATE TRIGGER cap AFTER INSERT ON backends "
            "BEGIN UPDATE backends SET weight = min(weight, 1) WHERE id = NEW.id; END;"
        )
    assert put(empty) == [True]
    assert [row[6] for row in empty.rows()] == [1]


@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)  # PostgreSQL does it by itself
def test_a_view_that_passes_edits_on_takes_them(empty: Kind) -> None:
    make_view(empty)
    empty.execute(
        "INSERT INTO kept VALUES ('a','myapp','sa','10.50.1.1',80,1,1,1,1,0);"
        "CREATE TRIGGER pass INSTEAD OF UPDATE ON backends "
        "BEGIN UPDATE kept SET healthy = NEW.healthy WHERE id = NEW.id; END;"
    )
    assert empty.nodes().disable("a").values["healthy"] == 0
    with pytest.raises(StoreError):
        empty.nodes().set_weight("nobody", 1)
