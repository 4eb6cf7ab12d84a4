"""The routing database is compared with the shadow, and written unless somebody edits it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cluster.bridge.routing_file import Look, MovedError, RoutingFile
from edgeproxy.cluster.bridge.shadow import Shadow
from edgeproxy.core.cluster.capture import Lineage
from edgeproxy.core.cluster.rows import BACKENDS, TABLES, Key
from edgeproxy.store.sqlite.database import SCHEMA, DatabaseError, create

ROW = {**dict.fromkeys(TABLES[BACKENDS].columns), "app": "myapp", "weight": 1, "deleted": 0}
A = Key(BACKENDS, "a")


@pytest.fixture
def file(tmp_path: Path) -> RoutingFile:
    path = tmp_path / "routing.db"
    create(path)
    return RoutingFile(path, Shadow(tmp_path / "shadow.db"))


def sql(file: RoutingFile, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file.path)) as connection:
        rows = [row for statement in statements for row in connection.execute(statement)]
        connection.commit()
        return rows


def write(file: RoutingFile, *keys: Key, marker: str = "m") -> Look:
    """Write rows and settle, as the bridge does; return what a look finds then."""
    file.look(restores=True)
    written = file.write(dict.fromkeys(keys, ROW), marker)
    file._shadow.put(written.items())
    file._shadow.set_marker(marker)
    file._shadow.file = file.identity
    return file.look()


def test_what_is_written_is_found_again(file: RoutingFile) -> None:
    look = write(file, A)
    assert (look.differences.present, look.differences.gone) == ({}, set())
    assert (look.lineage, look.is_replaced) == (Lineage.CURRENT, False)
    assert sql(file, "SELECT id, app FROM backends") == [("a", "myapp")]


def test_several_writes_need_one_look(file: RoutingFile) -> None:
    write(file, A)
    for number in range(3):
        file.write({Key(BACKENDS, f"b{number}"): ROW}, f"m{number}")
        assert not file.has_changed()
    sql(file, "UPDATE backends SET weight = 2")
    assert file.has_changed()
    with pytest.raises(MovedError):
        file.write({Key(BACKENDS, "c"): ROW}, "n")


def test_another_file_right_after_a_write_is_noticed(file: RoutingFile) -> None:
    write(file, A)
    file.write({Key(BACKENDS, "b"): ROW}, "n")
    other = file.path.with_suffix(".other")
    shutil.copyfile(file.path, other)
    other.rename(file.path)
    assert file.has_changed()


def test_what_a_trigger_does_to_other_rows_is_found(file: RoutingFile) -> None:
    write(file, A)
    sql(
        file,
        "CREATE TRIGGER t AFTER INSERT ON backends BEGIN "
        "UPDATE backends SET weight = 9 WHERE id = 'a'; END",
    )
    file.look()
    file.write({Key(BACKENDS, "b"): ROW}, "n")
    assert file.has_changed()
    assert file.look().differences.present[A]["weight"] == 9


def test_an_edit_between_look_and_write_is_noticed(file: RoutingFile) -> None:
    write(file, A)
    sql(file, "UPDATE backends SET weight = 2")
    with pytest.raises(MovedError):
        file.write({A: None}, "n")
    assert sql(file, "SELECT weight FROM backends") == [(2,)]


def test_another_file_between_look_and_write_is_noticed(file: RoutingFile) -> None:
    write(file, A)
    other = file.path.with_suffix(".other")
    shutil.copyfile(file.path, other)
    other.rename(file.path)
    with pytest.raises(MovedError):
        file.write({A: None}, "n")


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_an_edit_shows(file: RoutingFile, mode: str) -> None:
    sql(file, f"PRAGMA journal_mode = {mode}")
    write(file, A)
    assert not file.has_changed()
    sql(file, "UPDATE backends SET weight = 2")
    assert file.has_changed()
    assert file.look().differences.known == {A: ROW}


def test_lineage_follows_the_marker(file: RoutingFile) -> None:
    write(file, A, marker="one")
    copy = file.path.with_suffix(".copy")
    shutil.copyfile(file.path, copy)
    write(file, A, marker="two")
    shutil.copyfile(copy, file.path)
    assert file.look().lineage is Lineage.EARLIER
    file.path.unlink()
    create(file.path)
    assert file.look().lineage is Lineage.UNKNOWN


def test_another_file_is_a_replaced_one(file: RoutingFile) -> None:
    write(file, A)
    other = file.path.with_suffix(".other")
    shutil.copyfile(file.path, other)
    other.rename(file.path)
    look = file.look()
    assert (look.lineage, look.is_replaced) == (Lineage.CURRENT, True)


def test_what_a_type_makes_of_a_value_is_known(file: RoutingFile) -> None:
    sql(file, "DROP TABLE backends", SCHEMA.replace("weight INTEGER", "weight TEXT"))
    assert write(file, A).differences.present == {}
    assert sql(file, "SELECT weight FROM backends") == [("1",)]


def test_a_refused_row_is_named_with_the_reason(file: RoutingFile) -> None:
    check = "weight INTEGER CHECK (weight > 5)"
    sql(file, "DROP TABLE backends", SCHEMA.replace("weight INTEGER", check))
    write(file, A)
    assert "CHECK" in file.refused[A]
    assert sql(file, "SELECT * FROM backends") == []


def test_a_table_that_lacks_a_column_is_named(file: RoutingFile) -> None:
    sql(file, "ALTER TABLE backends DROP COLUMN weight")
    with pytest.raises(DatabaseError, match="no column weight"):
        file.look()


def test_columns_of_this_pop_survive_a_write(file: RoutingFile) -> None:
    write(file, A)
    sql(file, "ALTER TABLE backends ADD COLUMN rack", "UPDATE backends SET rack = 'r'")
    file.look()
    file.write({A: {**ROW, "weight": 3}}, "n")
    assert sql(file, "SELECT weight, rack FROM backends") == [(3, "r")]


def test_ids_that_differ_in_case_are_two_rows(file: RoutingFile) -> None:
    sql(file, "DROP TABLE backends", SCHEMA.replace(" PRIMARY KEY", " COLLATE NOCASE"))
    other = Key(BACKENDS, "A")
    assert write(file, A, other).differences.present == {}
    file.write({A: None}, "n")
    assert sql(file, "SELECT id FROM backends") == [("A",)]
