"""The rows of Corrosion, read from a file that has the tables of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.cluster.corrosion.configuration import schema_text
from edgeproxy.cluster.corrosion.state_file import StateFile
from edgeproxy.cluster.corrosion.statements import commit_statements
from edgeproxy.cluster.engine import EngineError, LostPositionError
from edgeproxy.core.cluster.rows import BACKENDS, LEASES, Edit, Key, id_of
from tests.cluster.corrosion.test_statements import BACKEND

A, B = Key(BACKENDS, "a"), Key(BACKENDS, "b")


class State:
    """A file as Corrosion makes it, and what reads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self.copy = folder / "copy.db"
        self.file = StateFile(self.path, self.copy)
        self.token = ""

    def make(self, actor: str = "aa") -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(schema_text())
            connection.execute("CREATE TABLE crsql_site_id (ordinal INTEGER, site_id BLOB)")
            connection.execute("INSERT INTO crsql_site_id VALUES (0, ?)", (bytes.fromhex(actor),))
            connection.commit()

    def edit(self, *edits: Edit) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for text, parameters in commit_statements(edits, self.token + "t", self.token):
                connection.execute(text, parameters)
            connection.commit()
        self.token += "t"

    def restart(self) -> None:
        self.file.close()
        self.file = StateFile(self.path, self.copy)

    def remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(f"state.db{suffix}").unlink(missing_ok=True)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path)
    yield state
    state.file.close()


def test_before_corrosion_has_made_its_file_there_is_nothing(state: State) -> None:
    assert state.file.last_token() == ""
    first = state.file.changes("")
    assert first.rows == {}
    assert state.file.changes(first.position) == first
    state.make()
    state.edit(Edit(A, BACKEND))
    assert state.file.changes(first.position).rows == {A: BACKEND}


def test_all_rows_come_first_and_then_what_has_changed(state: State) -> None:
    state.make()
    state.edit(Edit(A, BACKEND), Edit(B, BACKEND))
    first = state.file.changes("")
    assert first.rows == {A: BACKEND, B: BACKEND}
    state.edit(Edit(A, {"weight": 7}), Edit(B, None))
    second = state.file.changes(first.position)
    assert second.rows == {A: {**BACKEND, "weight": 7}, B: None}
    assert state.file.changes(second.position) == (second.position, {}, False)
    assert state.file.last_token() == "tt"


def test_what_was_not_kept_comes_again(state: State) -> None:
    state.make()
    state.edit(Edit(A, BACKEND))
    first = state.file.changes("")
    state.edit(Edit(A, None))
    assert state.file.changes(first.position).rows == {A: None}
    state.edit(Edit(B, BACKEND))
    assert state.file.changes(first.position).rows == {A: None, B: BACKEND}


def test_what_has_gone_while_nobody_looked_is_told_after_a_restart(state: State) -> None:
    state.make()
    lease = Key(LEASES, id_of(("a", "sa")))
    state.edit(Edit(A, BACKEND), Edit(lease, {"country": None, "ended_at": None}))
    first = state.file.changes("")
    state.restart()
    state.edit(Edit(lease, None))
    assert state.file.changes(first.position).rows == {lease: None}


def test_a_row_that_comes_back_is_told(state: State) -> None:
    state.make()
    state.edit(Edit(A, BACKEND))
    first = state.file.changes("")
    state.edit(Edit(A, None))
    second = state.file.changes(first.position)
    state.edit(Edit(A, BACKEND))
    third = state.file.changes(second.position)
    assert third.rows == {A: BACKEND}
    assert state.file.changes(third.position).rows == {}


@pytest.mark.parametrize("what", ["state", "copy"])
def test_a_position_of_a_state_or_copy_that_was_lost_counts_no_more(
    state: State, what: str
) -> None:
    state.make()
    state.edit(Edit(A, BACKEND))
    first = state.file.changes("")
    if what == "state":
        state.remove()
        state.make(actor="bb")
    else:
        state.file.close()
        for suffix in ("", "-wal", "-shm"):
            state.copy.with_name(f"copy.db{suffix}").unlink(missing_ok=True)
        state.restart()
    with pytest.raises(LostPositionError):
        state.file.changes(first.position)
    assert state.file.changes("").rows == ({} if what == "state" else {A: BACKEND})


def test_a_position_before_what_was_forgotten_counts_no_more(state: State) -> None:
    state.make()
    state.edit(Edit(A, BACKEND))
    first = state.file.changes("")
    state.edit(Edit(A, None))
    second = state.file.changes(first.position)
    state.file.changes(second.position)
    with pytest.raises(LostPositionError):
        state.file.changes(first.position)


def test_a_state_that_has_gone_deletes_nothing(state: State) -> None:
    state.make()
    state.edit(Edit(A, BACKEND))
    first = state.file.changes("")
    state.remove()
    assert state.file.changes(first.position).rows == {}


def test_a_file_that_is_no_database_is_named(state: State) -> None:
    state.path.write_bytes(b"music" * 1000)
    for call in (state.file.last_token, lambda: state.file.changes("")):
        with pytest.raises(EngineError, match="cannot be read"):
            call()
