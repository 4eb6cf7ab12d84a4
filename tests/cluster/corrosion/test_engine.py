"""The engine: what it does without Corrosion, and what a real one does."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edgeproxy.cluster.choice import make_engine
from edgeproxy.cluster.corrosion.configuration import TLS_FILES, Place, folder_of
from edgeproxy.cluster.corrosion.engine import REFUSED, CorrosionEngine
from edgeproxy.cluster.corrosion.link import NoAnswerError
from edgeproxy.cluster.corrosion.members import Facts
from edgeproxy.cluster.engine import EngineError
from edgeproxy.cluster.settings import Peer, ReplicationSettings
from edgeproxy.core.cluster.rows import BACKENDS, Edit, Key
from edgeproxy.values import ListenAddress
from tests.cluster.corrosion.exchanges import A
from tests.cluster.corrosion.pops import Corrosion, corrosions, needs_corrosion, stop
from tests.cluster.corrosion.test_link import SECRET, Api
from tests.cluster.corrosion.test_program import STAND_IN, until
from tests.cluster.corrosion.test_state_file import State
from tests.cluster.corrosion.test_statements import BACKEND
from tests.waiting import wait_until


@pytest.fixture
def settings(tmp_path: Path) -> ReplicationSettings:
    return ReplicationSettings(
        enabled=True,
        engine="corrosion",
        gossip_addr=ListenAddress("127.0.0.1", 0),
        db_path=tmp_path / "state.db",
        insecure=True,
        corrosion_bin=STAND_IN,
    )


@pytest.fixture
def engine(settings: ReplicationSettings) -> Iterator[CorrosionEngine]:
    engine = make_engine(settings, "sa", 1, "br")
    assert isinstance(engine, CorrosionEngine)
    yield engine
    asyncio.run(engine.stop())


@pytest.fixture
def api(engine: CorrosionEngine, settings: ReplicationSettings) -> Iterator[Api]:
    """The API of a Corrosion that runs, as it was recorded."""
    with Api() as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        place = Place(folder_of(settings.db_path), api.server_address[1], SECRET)
        engine._program.place = place
        yield api
        api.shutdown()
        thread.join()


# -- without Corrosion -----------------------------------------------------------------


def test_a_missing_program_is_named_with_what_to_do(settings: ReplicationSettings) -> None:
    settings = replace(settings, corrosion_bin=Path("no-corrosion-here"))
    with pytest.raises(EngineError, match="'no-corrosion-here': there is no such program"):
        CorrosionEngine(settings, "sa", 1, "")


def test_missing_certificates_are_named(settings: ReplicationSettings, tmp_path: Path) -> None:
    for name in TLS_FILES[1:]:
        (tmp_path / name).touch()
    with pytest.raises(EngineError, match=f"lacks {TLS_FILES[0]}$"):
        CorrosionEngine(replace(settings, corrosion_tls_dir=tmp_path), "sa", 1, "")


def test_a_path_too_long_for_a_socket_is_named(settings: ReplicationSettings) -> None:
    long = settings.db_path.with_name("x" * 100)
    with pytest.raises(EngineError, match="set EDGEPROXY_REPLICATION_DB_PATH"):
        CorrosionEngine(replace(settings, db_path=long), "sa", 1, "")


def test_before_it_runs_it_can_be_read_and_not_edited(engine: CorrosionEngine) -> None:
    assert engine.last_token() == ""
    assert engine.changes("").rows == {}
    with pytest.raises(EngineError, match="does not run: it has not started yet"):
        engine.commit([Edit(A, BACKEND)], "1", "", 0)


def test_one_that_names_others_is_not_ready_before_it_has_heard_of_them(
    settings: ReplicationSettings,
) -> None:
    for peers, is_ready in (((), True), ((Peer("10.0.0.1", 4001),), False)):
        engine = CorrosionEngine(replace(settings, bootstrap_peers=peers), "sa", 1, "")
        assert engine.is_ready() is is_ready
        asyncio.run(engine.stop())


@pytest.mark.usefixtures("api")
def test_a_commit_is_one_transaction(engine: CorrosionEngine) -> None:
    edits = [Edit(A, {"weight": 7}), Edit(Key(BACKENDS, "b"), {"weight": 7})]
    engine.commit(edits, "2", "1", 0)
    with pytest.raises(EngineError, match="another agent"):
        engine.commit([Edit(A, None)], "3", "1", 0)


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_commit_without_an_answer_is_settled_by_its_token(
    engine: CorrosionEngine, api: Api, tmp_path: Path, is_stored: bool
) -> None:
    api.is_silent = True
    state = State(tmp_path)
    state.file.close()
    state.make()
    if is_stored:
        state.edit(Edit(A, BACKEND))  # with the token "t"
        engine.commit([Edit(A, BACKEND)], "t", "", 0)
    else:
        with pytest.raises(NoAnswerError):
            engine.commit([Edit(A, BACKEND)], "t", "", 0)


@pytest.mark.usefixtures("api")
def test_a_commit_that_is_not_on_the_disk_does_not_count(
    engine: CorrosionEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    (tmp_path / "state.db-wal").write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", flushed.append)
    engine.commit([], "5", "4", 0)
    assert len(flushed) == 1

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EngineError, match="cannot be flushed"):
        engine.commit([], "5", "4", 0)


def test_a_change_of_the_file_wakes_the_bridge(engine: CorrosionEngine, tmp_path: Path) -> None:
    woken = threading.Event()

    async def run() -> None:
        await engine.start(woken.set)
        state = State(tmp_path)
        state.make()
        await asyncio.to_thread(wait_until, woken.is_set, "the first change")
        woken.clear()
        state.edit(Edit(A, BACKEND))
        await asyncio.to_thread(wait_until, woken.is_set, "another change")
        state.file.close()
        await engine.stop()

    asyncio.run(run())


def test_its_files_are_for_its_user_alone(engine: CorrosionEngine) -> None:
    place = engine._prepare()
    assert place.folder.stat().st_mode & 0o077 == 0
    assert place.configuration.stat().st_mode & 0o077 == 0
    assert place.secret in place.configuration.read_text()
    assert engine._prepare().secret != place.secret


def test_a_program_that_does_not_run_is_a_warning(engine: CorrosionEngine) -> None:
    status = engine.status()
    assert status["members"] == []
    assert "Corrosion does not run: it has not started yet" in status["warnings"]
    assert any("no TLS" in each for each in status["warnings"])


@pytest.mark.parametrize("name", [*REFUSED, "bogus"])
def test_what_corrosion_cannot_do_is_refused_with_what_to_do(
    engine: CorrosionEngine, name: str
) -> None:
    with pytest.raises(EngineError, match="Corrosion "):
        asyncio.run(engine.command(name, {}))


def test_nobody_who_is_unknown_is_forgotten(engine: CorrosionEngine) -> None:
    with pytest.raises(EngineError, match="no POP us is known; known are: none"):
        asyncio.run(engine.command("forget", {"node": "us"}))


def test_it_starts_and_ends_the_program(engine: CorrosionEngine) -> None:
    async def run() -> None:
        await engine.start(lambda: None)
        await until((engine._folder / "started").exists, "a start")
        assert engine.status()["counters"]["corrosion_starts"] == 1
        await engine.stop()
        assert engine._program.place is None

    asyncio.run(run())


@pytest.mark.parametrize(("has_synced", "looks"), [(True, 3), (False, 13)])
def test_it_is_ready_when_what_others_have_is_known(
    settings: ReplicationSettings, has_synced: bool, looks: int
) -> None:
    settings = replace(settings, bootstrap_peers=(Peer("10.0.0.1", 4001),))
    engine = CorrosionEngine(settings, "sa", 1, "")
    for members, missing, rows_before in (
        ([], {}, 0),
        ([{"is_connected": False}], {}, 0),
        ([{"is_connected": True}], {"AA": 1}, 0),
        ([{"is_connected": True}], {}, 7),
    ):
        engine._members = members
        engine._facts = Facts("BB", 1, {}, missing)
        for _ in range(30):
            engine._judge(has_synced=has_synced, rows_before=rows_before)
        assert not engine.is_ready()
    for look in range(1, looks + 1):
        engine._judge(has_synced=has_synced, rows_before=0)
        assert engine.is_ready() is (look == looks)
    asyncio.run(engine.stop())


# -- with a real one -------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> Iterator[list[Corrosion]]:
    both = corrosions(tmp_path, ("sa", "us"))
    yield both
    stop(both)


@needs_corrosion
def test_an_edit_reaches_the_other_one_as_it_was(both: list[Corrosion]) -> None:
    sa, us = both
    values = {**BACKEND, "app": 'é"\0x', "weight": 1.0, "soft_limit": -(1 << 63), "port": "5"}
    sa.commit([Edit(A, values)], "1", "", 0)
    us.hear(sa)
    assert us.rows() == {A: values}
    assert [type(each) for each in us.rows()[A].values()] == [
        type(each) for each in values.values()
    ]
    assert (sa.last_token(), us.last_token()) == ("1", "")


@needs_corrosion
def test_a_late_commit_is_refused(both: list[Corrosion]) -> None:
    sa, _ = both
    sa.commit([], "fence", "", 0)
    with pytest.raises(EngineError, match="another agent"):
        sa.commit([Edit(A, BACKEND)], "late", "", 0)
    assert sa.rows() == {}
    assert sa.last_token() == "fence"


@needs_corrosion
def test_a_row_of_which_nothing_changes_has_no_new_version(both: list[Corrosion]) -> None:
    sa, us = both
    sa.commit([Edit(A, BACKEND)], "1", "", 0)
    us.hear(sa)
    with closing(sqlite3.connect(sa.settings.db_path)) as connection:
        query = "SELECT col_name, col_version FROM backends__crsql_clock"
        before = connection.execute(query).fetchall()
        sa.commit([Edit(A, BACKEND), Edit(A, {"weight": 1.5})], "2", "1", 0)
        assert connection.execute(query).fetchall() == before


@needs_corrosion
def test_one_that_is_killed_comes_back_with_what_it_had(both: list[Corrosion]) -> None:
    sa, us = both
    sa.commit([Edit(A, BACKEND)], "1", "", 0)
    process = sa.engine._program._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: sa.engine._program.starts_total == 2 and sa.is_up, "a start", 60)

    def is_taken() -> bool:
        try:
            sa.commit([Edit(A, {"weight": 9})], "2", "1", 0)
        except NoAnswerError:
            raise
        except EngineError:
            return False
        return True

    wait_until(is_taken, "an edit", 60)
    us.hear(sa)
    assert us.rows()[A]["weight"] == 9


@needs_corrosion
def test_the_members_have_their_names(both: list[Corrosion]) -> None:
    sa, us = both

    def is_shown() -> bool:
        (member,) = sa.engine.status()["members"]
        return (member["node_id"], member["is_connected"]) == ("us", True)

    wait_until(is_shown, "the name")
    with pytest.raises(EngineError, match="us is up"):
        sa.ask("forget", node="us")
    us_process = us.engine._program
    us_process._path = "/nonexistent"
    assert us_process._process is not None
    us_process._process.terminate()
    wait_until(
        lambda: not any(each["is_connected"] for each in sa.engine.status()["members"]), "a leave"
    )
    assert "us is forgotten" in str(sa.ask("forget", node="us"))
