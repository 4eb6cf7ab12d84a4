"""The bridge: edits reach all POPs, accidents reach none, and a death loses nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cluster.bridge import bridge
from edgeproxy.core.cluster.cells import MAX_ID_BYTES
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, Edit, Key
from edgeproxy.store.sqlite import leases
from edgeproxy.store.sqlite.database import SCHEMA, create, replace
from edgeproxy.store.sqlite.nodes import Nodes
from edgeproxy.store.sqlite.routes import Routes
from tests.cluster.bridge.memory_engine import MemoryEngine
from tests.cluster.bridge.pops import ROW, Pop, exchange

MANY = [f"node-{number}" for number in range(40)]


@pytest.fixture
def pops(tmp_path: Path) -> list[Pop]:
    """Three POPs that have heard of each other."""
    found = [Pop(tmp_path, name) for name in ("sa", "us", "eu")]
    exchange(*found)
    return found


@pytest.fixture
def filled(pops: list[Pop]) -> list[Pop]:
    """Three POPs with forty backends."""
    pops[0].add(*MANY)
    exchange(*pops)
    assert all(pop.ids == set(MANY) for pop in pops)
    return pops


# -- edits ---------------------------------------------------------------------------


def test_many_rows_come_in_one_round(
    filled: list[Pop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ROWS_AT_ONCE", 3)
    new = Pop(tmp_path, "new")
    new.rounds()
    new.engine.hear(filled[0].engine)
    assert new.round()
    assert new.ids == set(MANY)


def test_an_insert_an_update_and_a_delete_reach_every_pop(pops: list[Pop]) -> None:
    sa, us, eu = pops
    sa.add("a", "b")
    exchange(*pops)
    us.sql("UPDATE backends SET weight = 7 WHERE id = 'a'", "DELETE FROM backends WHERE id = 'b'")
    exchange(*pops)
    assert sa.table() == us.table() == eu.table() == {"a": 7}


def test_edits_of_two_groups_of_one_row_are_both_kept(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a")
    exchange(*pops)
    sa.sql("UPDATE backends SET weight = 7")
    us.sql("UPDATE backends SET healthy = 0")
    exchange(*pops)
    assert all(
        pop.table("SELECT id, weight || healthy FROM backends") == {"a": "70"} for pop in pops
    )


def test_what_comes_from_elsewhere_is_no_edit(pops: list[Pop]) -> None:
    sa, us, eu = pops
    sa.add("a")
    exchange(*pops)
    assert [len(pop.engine.commits) for pop in pops] == [1, 0, 0]
    for pop in pops:
        pop.die()
        pop.start()
    exchange(*pops)
    assert [len(pop.engine.commits) for pop in (sa, us, eu)] == [1, 0, 0]


def test_routes_and_leases_are_replicated(pops: list[Pop]) -> None:
    sa, us, _ = pops
    Routes(sa.path).set("*.example.com", "web")
    sa.add("a")
    sa.sql(
        leases.TABLE,
        leases.TRIGGER,
        f"INSERT INTO {LEASES} VALUES ('a', 'sa', 'BR', NULL)",
    )
    exchange(*pops)
    assert Routes(us.path).read() == [("*.example.com", "web")]
    assert us.table(f"SELECT id, country FROM {LEASES}") == {"a": "BR"}
    us.sql("DELETE FROM backends WHERE id = 'a'")
    exchange(*pops)
    assert all(pop.table(f"SELECT id, home FROM {LEASES}") == {} for pop in pops)


def test_columns_of_one_pop_alone_stay_there(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.sql("ALTER TABLE backends ADD COLUMN rack TEXT", "ALTER TABLE backends ADD COLUMN country")
    row = ROW.format(id="a", weight=1).removesuffix(")")
    sa.sql(f"INSERT INTO backends VALUES {row}, 'r1', 'BR')")
    exchange(*pops)
    us.sql("UPDATE backends SET wg_ip = '10.50.1.9', weight = 3")  # has no column for the country
    exchange(*pops)
    query = "SELECT rack, country || weight || wg_ip FROM backends"
    assert sa.table(query) == {"r1": "BR310.50.1.9"}


def test_an_edit_that_another_pop_overtakes_is_not_taken_back(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a")
    exchange(*pops)
    sa.sql("UPDATE backends SET weight = 2")
    sa.rounds()
    us.engine.hear(sa.engine)
    us.rounds()
    us.sql("UPDATE backends SET weight = 3")
    exchange(*pops)
    assert all(pop.table() == {"a": 3} for pop in pops)


def test_a_row_that_a_table_refuses_stays_out_of_it_alone(pops: list[Pop]) -> None:
    sa, us, eu = pops
    us.sql(
        "DROP TABLE backends", SCHEMA.replace("weight INTEGER", "weight INTEGER CHECK (weight < 5)")
    )
    us.rounds()
    sa.add("a")
    sa.add("b", weight=9)
    exchange(*pops)
    assert (sa.ids, us.ids, eu.ids) == ({"a", "b"}, {"a"}, {"a", "b"})
    us.sql("UPDATE backends SET weight = 4 WHERE id = 'a'")
    exchange(*pops)
    assert sa.table() == {"a": 4, "b": 9}


@pytest.mark.parametrize(
    "value",
    [
        "app = x'ff'",
        "app = CAST(x'ff' AS TEXT)",
        "soft_limit = 9e999",
        "app = hex(zeroblob(9000))",
    ],
)
def test_a_value_that_cannot_be_replicated_stays_here(pops: list[Pop], value: str) -> None:
    sa, us, _ = pops
    sa.add("a", "b")
    exchange(*pops)
    sa.sql(f"UPDATE backends SET {value} WHERE id = 'a'", "UPDATE backends SET weight = 2")
    exchange(*pops)
    assert us.table() == {"a": 1, "b": 2}
    assert sa.ids == {"a", "b"}


def test_a_row_with_too_long_an_id_stays_here_and_stalls_nothing(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a", "x" * (MAX_ID_BYTES + 1))
    sa.rounds()
    assert [edit.key.id for edits in sa.engine.commits for edit in edits] == ["a"]
    exchange(*pops)
    assert us.ids == {"a"}
    assert len(sa.ids) == 2


def test_a_row_without_an_id_stays_here(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.sql("INSERT INTO backends (app) VALUES ('x')")
    sa.add("a")
    exchange(*pops)
    assert us.ids == {"a"}
    assert sa.ids == {"a", None}


def test_a_table_that_allows_an_id_twice_does_not_replicate_those(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.sql("DROP TABLE backends", SCHEMA.replace(" PRIMARY KEY", ""))
    sa.add("a", "b")
    sa.add("a", weight=2)
    exchange(*pops)
    assert us.ids == {"b"}


# -- accidents -----------------------------------------------------------------------


def remove_file(pop: Pop) -> None:
    pop.path.unlink()


def empty_file(pop: Pop) -> None:
    pop.path.write_bytes(b"")


def init_by_force(pop: Pop) -> None:
    replace(pop.path)


def delete_all(pop: Pop) -> None:
    pop.sql("DELETE FROM backends")


def drop_table(pop: Pop) -> None:
    pop.sql("DROP TABLE backends")


def drop_and_create_table(pop: Pop) -> None:
    pop.sql("DROP TABLE backends", SCHEMA)


def rewrite_by_dump(pop: Pop) -> None:
    dump = subprocess.run(
        ["sqlite3", str(pop.path), ".dump"], capture_output=True, check=True
    ).stdout
    pop.path.unlink()
    subprocess.run(["sqlite3", str(pop.path)], input=dump, check=True)


def move_empty_file_there(pop: Pop) -> None:
    other = pop.path.with_suffix(".new")
    create(other)
    other.rename(pop.path)


def copy_empty_file_there(pop: Pop) -> None:
    other = pop.path.with_suffix(".new")
    create(other)
    shutil.copyfile(other, pop.path)


ACCIDENTS = [
    remove_file,
    empty_file,
    init_by_force,
    delete_all,
    drop_table,
    drop_and_create_table,
    rewrite_by_dump,
    move_empty_file_there,
    copy_empty_file_there,
]


@pytest.mark.parametrize("is_dead", [False, True], ids=["alive", "dead_meanwhile"])
@pytest.mark.parametrize("happen", ACCIDENTS)
def test_an_accident_deletes_nothing_anywhere(
    filled: list[Pop], happen: Callable[[Pop], None], is_dead: bool
) -> None:
    sa = filled[0]
    if is_dead:
        sa.die()
    happen(sa)
    if is_dead:
        sa.start()
    exchange(*filled)
    assert [pop.ids == set(MANY) for pop in filled] == [True] * 3


def test_a_table_that_vanishes_is_restored_only_after_a_while(filled: list[Pop]) -> None:
    sa, us, _ = filled
    drop_table(sa)
    assert not sa.round()
    assert not sa.round()
    sa.sql(SCHEMA)  # would fail if it were there again
    sa.add("new")
    exchange(*filled)
    assert sa.ids == us.ids == {*MANY, "new"}


@pytest.mark.parametrize("happen", [init_by_force, delete_all, move_empty_file_there])
def test_an_accident_deletes_nothing_of_a_few_rows(
    pops: list[Pop], happen: Callable[[Pop], None]
) -> None:
    pops[0].add("a", "b", "c")
    exchange(*pops)
    happen(pops[0])
    exchange(*pops)
    assert all(pop.ids == {"a", "b", "c"} for pop in pops)


def test_a_database_that_is_made_anew_adds_its_rows_and_overrules_none(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.path.unlink()
    create(sa.path)
    sa.add("node-1", "new", weight=9)
    exchange(*filled)
    assert us.table() == {**dict.fromkeys(MANY, 1), "new": 9}
    assert sa.table() == us.table()


def test_an_older_copy_undoes_nothing(filled: list[Pop]) -> None:
    sa, us, _ = filled
    backup = sa.path.with_suffix(".backup")
    shutil.copyfile(sa.path, backup)
    us.add("later")
    us.sql("UPDATE backends SET weight = 5 WHERE id = 'node-1'")
    us.sql("DELETE FROM backends WHERE id = 'node-2'")
    exchange(*filled)
    shutil.copyfile(backup, sa.path)
    exchange(*filled)
    assert sa.table() == us.table()
    assert us.table()["node-1"] == 5
    assert "later" in us.ids
    assert "node-2" not in us.ids


def test_an_older_copy_undoes_no_edit_of_its_own_pop(filled: list[Pop]) -> None:
    sa, us, _ = filled
    backup = sa.path.with_suffix(".backup")
    shutil.copyfile(sa.path, backup)
    sa.add("later")
    sa.sql("UPDATE backends SET weight = 5 WHERE id = 'node-1'")
    exchange(*filled)
    sa.rounds()
    shutil.copyfile(backup, sa.path)
    exchange(*filled)
    assert sa.table() == us.table() == {**dict.fromkeys(MANY, 1), "node-1": 5, "later": 1}


def test_a_few_deletes_at_once_are_deletes(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.sql("DELETE FROM backends WHERE id LIKE 'node-1_'")
    exchange(*filled)
    assert us.ids == {node for node in MANY if not node.startswith("node-1") or node == "node-1"}


def test_many_deletes_by_command_are_deletes(filled: list[Pop]) -> None:
    sa, us, _ = filled
    nodes = Nodes(sa.path)
    for node in MANY[:30]:
        nodes.delete(node)
    exchange(*filled)
    assert us.ids == set(MANY[30:])
    assert sa.table("SELECT name, id FROM edgeproxy_deletions") == {}


def test_a_delete_by_command_while_the_bridge_is_down_is_a_delete(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.die()
    nodes = Nodes(sa.path)
    for node in MANY[:30]:
        nodes.delete(node)
    sa.add("node-1", weight=4)
    sa.start()
    exchange(*filled)
    assert us.table() == {"node-1": 4, **dict.fromkeys(MANY[30:], 1)}


def test_a_damaged_file_deletes_nothing(filled: list[Pop]) -> None:
    sa, us, _ = filled
    content = bytearray(sa.path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    sa.path.write_bytes(content)
    for _ in range(3):
        with pytest.raises(Exception, match="damaged"):
            sa.round()
    us.rounds()
    assert us.ids == set(MANY)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    pop = Pop(tmp_path, "sa")
    pop.path.unlink()
    with closing(sqlite3.connect(pop.path)) as connection:
        connection.execute("CREATE TABLE music (title)")
    pop.round()
    pop.now += 10
    with pytest.raises(Exception, match="no table"):
        pop.round()
    assert pop.table("SELECT name, 1 FROM sqlite_master") == {"music": 1}


# -- a new POP -----------------------------------------------------------------------


def test_a_new_pop_takes_over_what_there_is_and_adds_what_it_has(
    filled: list[Pop], tmp_path: Path
) -> None:
    new = Pop(tmp_path, "ap", ready=False)
    new.add("own")
    new.add("node-1", weight=9)
    assert not new.round()
    new.engine.hear(filled[0].engine)
    new.engine.ready = True
    exchange(*filled, new)
    assert all(pop.table() == {**dict.fromkeys(MANY, 1), "own": 1} for pop in (*filled, new))


def test_nothing_is_imported_before_the_others_are_heard(tmp_path: Path) -> None:
    new = Pop(tmp_path, "ap", ready=False)
    new.add("own")
    assert not new.round()
    assert new.round()  # it rests meanwhile
    assert new.engine.commits == []
    assert new.ids == {"own"}
    new.engine.ready = True
    new.rounds()
    assert [edit.key.id for edits in new.engine.commits for edit in edits] == ["own"]


# -- deaths --------------------------------------------------------------------------


class Death(BaseException):
    """The bridge dies here."""


STEPS = [
    ("engine", "commit", "before"),
    ("engine", "commit", "after"),
    ("bridge", "_settle_outbox", "before"),
    ("bridge", "_settle_outbox", "after"),
    ("file", "write", "before"),
    ("file", "write", "after"),
    ("bridge", "_settle_pending", "before"),
    ("bridge", "_settle_pending", "after"),
]


@pytest.mark.parametrize(("part", "step", "when"), STEPS)
def test_a_death_at_any_step_loses_no_edit_and_undoes_none(
    pops: list[Pop], monkeypatch: pytest.MonkeyPatch, part: str, step: str, when: str
) -> None:
    sa, us, _ = pops
    sa.add("a", "b")
    exchange(*pops)
    # Here and elsewhere somebody edits, and the bridge dies while it carries either.
    us.sql("UPDATE backends SET weight = 5 WHERE id = 'b'")
    us.rounds()
    sa.engine.hear(us.engine)
    sa.sql("UPDATE backends SET weight = 2 WHERE id = 'a'")
    target = {"engine": sa.engine, "bridge": sa.bridge, "file": sa.bridge._file}[part]
    real = getattr(target, step)

    def dies(*args: object) -> object:
        if when == "after":
            real(*args)
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(target, step, dies)
        with pytest.raises(Death):
            sa.rounds()
    sa.die()
    # The engine, a process of its own, goes on: both rows get newer values from elsewhere.
    us.engine.hear(sa.engine)
    us.rounds()
    was_committed = us.table()["a"] == 2
    us.sql("UPDATE backends SET weight = 6 WHERE id = 'b'")
    if was_committed:
        us.sql("UPDATE backends SET weight = 3 WHERE id = 'a'")
    us.rounds()
    sa.engine.hear(us.engine)
    sa.start()
    exchange(*pops)
    expected = {"a": 3 if was_committed else 2, "b": 6}
    assert sa.table() == us.table() == expected


def test_an_engine_that_fails_stops_nothing_for_ever(
    pops: list[Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    sa, us, _ = pops
    sa.add("a")
    with monkeypatch.context() as patch:
        patch.setattr(sa.engine, "commit", lambda *_: (_ for _ in ()).throw(RuntimeError("down")))
        for _ in range(3):
            with pytest.raises(RuntimeError):
                sa.round()
    exchange(*pops)
    assert us.ids == {"a"}


def test_an_edit_between_the_look_and_the_write_is_kept(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a")
    exchange(*pops)
    us.sql("UPDATE backends SET healthy = 0")
    us.rounds()
    sa.engine.hear(us.engine)
    real = sa.engine.changes

    def changes(after: str) -> object:
        if sa.table() == {"a": 1}:
            sa.sql("UPDATE backends SET weight = 8")
        return real(after)

    sa.engine.changes = changes  # type: ignore[method-assign, assignment]
    exchange(*pops)
    assert all(
        pop.table("SELECT id, weight || healthy FROM backends") == {"a": "80"} for pop in pops
    )


def test_a_lost_shadow_loses_nothing(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.die()
    sa.shadow.path.unlink()
    sa.add("new")
    sa.start()
    us.add("other")
    exchange(*filled)
    assert sa.ids == us.ids == {*MANY, "new", "other"}


def test_a_lost_shadow_undoes_nothing_of_many_rows(
    filled: list[Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ROWS_AT_ONCE", 10)
    sa, us, _ = filled
    sa.die()
    sa.shadow.path.unlink()
    us.sql("UPDATE backends SET weight = 5")
    us.rounds()
    sa.engine.hear(us.engine)
    sa.start()
    exchange(*filled)
    assert sa.table() == us.table() == dict.fromkeys(MANY, 5)


def test_an_older_copy_of_many_rows_undoes_nothing(
    filled: list[Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ROWS_AT_ONCE", 10)
    sa, us, _ = filled
    backup = sa.path.with_suffix(".backup")
    shutil.copyfile(sa.path, backup)
    us.sql("UPDATE backends SET weight = 5")
    exchange(*filled)
    shutil.copyfile(backup, sa.path)
    exchange(*filled)
    assert sa.table() == us.table() == dict.fromkeys(MANY, 5)


def test_a_mass_delete_is_undone_whole(filled: list[Pop], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "ROWS_AT_ONCE", 5)
    sa, us, _ = filled
    sa.sql("DELETE FROM backends WHERE rowid <= 12")
    exchange(*filled)
    assert sa.ids == us.ids == set(MANY)


def test_a_lost_state_and_shadow_revive_nothing(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.die()
    sa.shadow.path.unlink()
    sa.engine = MemoryEngine("sa", ready=False)
    us.sql("DELETE FROM backends WHERE id = 'node-1'")
    us.rounds()
    sa.engine.hear(us.engine)
    sa.engine.ready = True
    sa.start()
    exchange(*filled)
    assert sa.ids == us.ids == set(MANY) - {"node-1"}


def test_a_lost_state_of_the_engine_deletes_nothing(filled: list[Pop]) -> None:
    sa, us, _ = filled
    sa.engine = MemoryEngine("sa", ready=False)
    sa.die()
    sa.start()
    for _ in range(3):
        sa.round()
    assert sa.ids == set(MANY)
    us.sql("UPDATE backends SET weight = 5 WHERE id = 'node-1'")
    us.rounds()
    sa.engine.hear(us.engine)
    sa.engine.ready = True
    sa.add("new")
    exchange(*filled)
    assert sa.table() == us.table() == {**dict.fromkeys(MANY, 1), "node-1": 5, "new": 1}


def lose_shadow(pop: Pop) -> None:
    pop.shadow.path.unlink()


def lose_both(pop: Pop) -> None:
    lose_shadow(pop)
    engine = MemoryEngine(pop.name)
    engine.hear(pop.engine)
    pop.engine = engine


@pytest.mark.parametrize("lose", [lose_shadow, lose_both])
def test_while_many_rows_are_compared_anew_none_is_missing(
    filled: list[Pop], monkeypatch: pytest.MonkeyPatch, lose: Callable[[Pop], None]
) -> None:
    """The proxy reads the file meanwhile, and a row that is made anew lacks columns of its own."""
    monkeypatch.setattr(bridge, "ROWS_AT_ONCE", 5)
    sa = filled[0]
    sa.sql("ALTER TABLE backends ADD COLUMN note", "UPDATE backends SET note = 'mine'")
    exchange(*filled)
    noted = [("mine",)] * len(MANY)
    sa.die()
    lose(sa)
    sa.start()
    written = sa.bridge._file.write
    writes: list[int] = []

    def write(*args: Any) -> Any:
        done = written(*args)
        with closing(sqlite3.connect(sa.path)) as connection:
            assert connection.execute("SELECT note FROM backends").fetchall() == noted
        writes.append(len(args[0]))
        return done

    monkeypatch.setattr(sa.bridge._file, "write", write)
    sa.rounds()
    assert sum(writes) >= len(MANY)


def test_edits_found_at_a_start_count_from_when_the_file_was_written(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a")
    exchange(*pops)
    sa.die()
    sa.sql("UPDATE backends SET weight = 2")
    long_ago = 1_800_000_000
    os.utime(sa.path, (long_ago, long_ago))
    us.now += 100
    us.sql("UPDATE backends SET weight = 3")
    us.rounds()
    sa.start()
    sa.now += 1000
    exchange(*pops)
    assert sa.table() == us.table() == {"a": 3}


def test_edits_found_at_a_start_count_from_the_write_ahead_log(pops: list[Pop]) -> None:
    sa, us, _ = pops
    sa.add("a")
    exchange(*pops)
    sa.die()
    reader = sqlite3.connect(sa.path)  # keeps the log
    reader.execute("PRAGMA journal_mode = WAL").fetchall()
    reader.execute("SELECT * FROM backends").fetchall()
    us.sql("UPDATE backends SET weight = 3")
    us.rounds()
    sa.sql("UPDATE backends SET weight = 2")
    os.utime(sa.path, (1_800_000_000, 1_800_000_000))
    os.utime(f"{sa.path}-wal", (us.now + 100, us.now + 100))
    sa.start()
    sa.now += 1000
    exchange(*pops)
    reader.close()
    assert sa.table() == us.table() == {"a": 2}


def test_a_locked_file_is_no_harm(pops: list[Pop]) -> None:
    sa, us, _ = pops
    us.add("a")
    us.rounds()
    sa.engine.hear(us.engine)
    with closing(sqlite3.connect(sa.path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="locked"):
            sa.round()
    sa.rounds()
    assert sa.ids == {"a"}


def test_a_key_names_one_row() -> None:
    assert Edit(Key(BACKENDS, "a"), None) == ((BACKENDS, "a"), None)
