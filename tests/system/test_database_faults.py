"""Whatever happens to the routing database, the last good table stays, and it recovers."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.store.editing import DOCUMENTED_TABLE, execute, locked, release
from tests.system.backends import Backend
from tests.system.pop import Pop, row
from tests.system.proxy import RunningProxy, run_edgeproxy
from tests.waiting import PAUSE, wait_until

pytestmark = pytest.mark.system

RELOADS_SECS = 0.3
"""Several reload intervals of 0.05 s."""


@pytest.fixture
def proxy(pop: Pop) -> RunningProxy:
    """Return a proxy that routes to the node `first`."""
    pop.backend("first")
    return pop.serve()


@pytest.fixture
def second(pop: Pop) -> Backend:
    """Return a backend that no database knows yet."""
    backend = pop.keep(Backend("second"))
    backend.start()
    return backend


def database_with(path: Path, backend: Backend) -> Path:
    execute(path, DOCUMENTED_TABLE + row(backend))
    return path


def overwrite(path: Path, start: int = 0) -> None:
    """Put rubbish into the file, as a failing disk or a careless copy does."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"rubbish!" * ((path.stat().st_size - start) // 8))


def test_a_missing_database_is_made_at_start_and_the_log_says_so(pop: Pop) -> None:
    proxy = pop.serve()

    (created,) = proxy.seen("database_created")
    assert created["path"] == "routing.db"
    assert proxy.seen("ready")[0]["backends"] == "0"
    assert pop.reached() == ""
    pop.backend("first")
    assert pop.reached() == "first"


def test_a_deleted_database_takes_nobody_away(pop: Pop, proxy: RunningProxy) -> None:
    pop.database.unlink()

    fault = proxy.wait_for("database_unreadable")
    assert "does not exist" in fault["reason"]
    PAUSE.wait(RELOADS_SECS)
    assert pop.reached() == "first"
    assert len(proxy.seen("database_unreadable")) == 1, "said once per episode"
    assert not pop.database.exists(), "a running proxy does not invent an empty one"


def test_a_deleted_database_that_comes_back_is_followed(
    pop: Pop, proxy: RunningProxy, second: Backend
) -> None:
    pop.database.unlink()
    proxy.wait_for("database_unreadable")

    database_with(pop.database, second)

    proxy.wait_for("database_recovered")
    proxy.wait_for("table_published", 2)
    assert pop.reached() == "second"


@pytest.mark.parametrize("command", ["mv", "cp"])
def test_a_replaced_database_is_followed(
    pop: Pop, proxy: RunningProxy, second: Backend, command: str
) -> None:
    new = database_with(pop.folder / "new.db", second)

    subprocess.run([command, str(new), str(pop.database)], check=True)

    proxy.wait_for("table_published", 2)
    assert pop.reached() == "second"
    if command == "mv":  # while `cp` writes, the file has been emptied
        assert not proxy.seen("database_unreadable")
    proxy.edit("UPDATE backends SET healthy = 0")
    assert pop.reached() == "", "the new file is followed in its turn"


def test_a_database_locked_by_another_program_keeps_the_last_table(
    pop: Pop, proxy: RunningProxy
) -> None:
    with locked(pop.database) as locker:
        fault = proxy.wait_for("database_unreadable")
        assert "locked by another program" in fault["reason"]
        assert pop.reached() == "first"
        release(locker)
    proxy.wait_for("database_recovered")
    proxy.edit("UPDATE backends SET healthy = 0")
    assert pop.reached() == ""


@pytest.mark.parametrize("start", [0, 4096], ids=["all_of_it", "all_but_the_first_page"])
def test_a_damaged_database_keeps_the_last_table_and_recovers(
    pop: Pop, proxy: RunningProxy, second: Backend, start: int
) -> None:
    overwrite(pop.database, start)

    fault = proxy.wait_for("database_unreadable")
    assert "damaged" in fault["reason"]
    assert pop.reached() == "first"

    new = database_with(pop.folder / "new.db", second)
    shutil.move(new, pop.database)
    proxy.wait_for("database_recovered")
    assert pop.reached() == "second"


def test_a_truncated_database_keeps_the_last_table(pop: Pop, proxy: RunningProxy) -> None:
    pop.database.write_bytes(b"")

    proxy.wait_for("database_unreadable")
    assert pop.reached() == "first"


def test_a_dropped_table_keeps_the_last_table(pop: Pop, proxy: RunningProxy) -> None:
    execute(pop.database, "DROP TABLE backends")

    fault = proxy.wait_for("database_unreadable")
    assert "no table `backends`" in fault["reason"]
    assert pop.reached() == "first"


def test_deleting_every_row_is_an_edit_like_any_other_and_gets_a_warning(
    pop: Pop, proxy: RunningProxy
) -> None:
    proxy.edit("DELETE FROM backends")

    assert proxy.seen("table_lost_all_backends", level="warning")
    assert pop.reached() == ""


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda path: path.write_text("this is no database\n" * 100), "damaged or not"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: execute(path, "CREATE TABLE backends (id TEXT)"), "no column app"),
    ],
    ids=["no_database", "a_directory", "another_table"],
)
def test_a_start_with_a_database_that_cannot_be_used_fails_and_says_why(
    tmp_path: Path, spoil: object, complaint: str
) -> None:
    assert callable(spoil)
    spoil(tmp_path / "routing.db")

    done = run_edgeproxy("serve", folder=tmp_path, EDGEPROXY_LISTEN_ADDR="127.0.0.1:0")

    assert done.returncode == 1
    assert "routing.db" in done.stderr
    assert complaint in done.stderr
    assert "ready" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_waits_for_a_short_lock(pop: Pop) -> None:
    pop.backend("first")
    with locked(pop.database) as locker:
        starting = pop.begin_to_serve()
        PAUSE.wait(0.5)
        assert starting.is_running()
        assert not starting.seen("ready")
        release(locker)
    assert starting.wait_for("ready")["backends"] == "1"


ENDLESS = """ALTER TABLE backends RENAME TO kept;
    CREATE VIEW backends AS
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers)
    SELECT kept.* FROM kept, numbers WHERE n < 0"""
"""A view that yields nothing and does not end."""


def test_a_view_that_never_ends_holds_nothing_up_and_not_the_end(
    pop: Pop, proxy: RunningProxy
) -> None:
    execute(pop.database, ENDLESS)
    wait_until(lambda: proxy.cpu_secs() > 1, "the reading of the view")
    pop.overrides.write_text("127.10.0.0/16, DE\n")
    proxy.wait_for("geo_reloaded", overrides="1")
    assert pop.reached() == "first"
    proxy.stop()


def test_a_start_that_reads_a_view_that_never_ends_can_be_stopped(pop: Pop) -> None:
    pop.backend("first")
    execute(pop.database, ENDLESS)
    proxy = pop.begin_to_serve()
    proxy.wait_for("geo")
    wait_until(lambda: proxy.cpu_secs() > 1, "the reading of the view")
    proxy.send(signal.SIGTERM)
    assert proxy.wait_for_exit() == 0
    assert not proxy.foreign
