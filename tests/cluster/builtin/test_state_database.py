"""Opening the file of a node's state, and what is said when that fails."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cluster.builtin import state_database
from edgeproxy.cluster.builtin.state_database import StateDatabase
from edgeproxy.cluster.builtin.state_file import StateFile
from edgeproxy.core.cluster.store import Facts
from edgeproxy.errors import StateError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_new_file_is_for_its_owner_only(path: Path) -> None:
    StateDatabase(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_committed_is_on_disk(path: Path) -> None:
    run = StateDatabase(path).connection.execute
    assert run("PRAGMA journal_mode").fetchone() == ("wal",)
    assert run("PRAGMA synchronous").fetchone() == (2,)
    assert run("PRAGMA locking_mode").fetchone() == ("exclusive",)


def test_one_process_uses_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_database, "_LOCK_WAIT_SECS", 0.0)
    one = StateDatabase(path)
    with pytest.raises(StateError, match="is in use by another process: stop that"):
        StateDatabase(path)
    one.connection.close()
    StateDatabase(path)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StateError, match=r"state\.db is damaged .* move state\.db"):
        StateDatabase(path)
    assert path.read_bytes() == b"no database" * 1000


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    assert StateFile(path).facts() == Facts()


def test_damage_inside_is_found_when_opening(path: Path) -> None:
    store = StateFile(path)
    with store.transaction():
        store.set_facts(Facts(token="x" * 50_000))
    store.close()
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(data)
    with pytest.raises(StateError, match="is damaged"):
        StateFile(path)


def test_another_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE backends (id TEXT)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(StateError, match="not the state of a cluster: name another file"):
        StateDatabase(path)
    assert path.read_bytes() == before


def test_a_file_of_a_later_schema_is_left_alone(path: Path) -> None:
    StateDatabase(path).connection.close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 99")
        later.commit()
    with pytest.raises(StateError, match=r"is of schema 99, .* use the edgeproxy that wrote it"):
        StateDatabase(path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be created: No such file or directory"):
        StateDatabase(tmp_path / "none" / "state.db")


def test_a_folder_instead_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be written"):
        StateDatabase(tmp_path)


def test_a_full_disk_changes_nothing_and_is_named(path: Path) -> None:
    store = StateFile(path)
    with store.transaction():
        store.set_facts(Facts(token="before"))
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match="make room on its disk; nothing has changed"):
        fill(store)
    assert store.facts().token == "before"
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    fill(store)
    assert store.facts().token != "before"


def fill(store: StateFile) -> None:
    with store.transaction():
        store.set_facts(Facts(token="x" * 1_000_000))
