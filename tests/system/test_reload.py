"""The proxy follows what people do to its routing database with plain `sqlite3`."""

from __future__ import annotations

import signal

import pytest

from tests.store.editing import DOCUMENTED_INSERT, DOCUMENTED_TABLE, execute, sqlite3_command
from tests.system.backends import Backend
from tests.system.pop import BRAZIL, GERMANY, UNITED_STATES, Pop, row
from tests.waiting import wait_until

pytestmark = pytest.mark.system

"""For a machine that is busy with other things."""


def use_real_backends(pop: Pop) -> None:
    """Move the three documented nodes to loopback before any client comes."""
    moves = []
    for backend_id in ("sa-node-1", "us-node-1", "eu-node-1"):
        backend = pop.keep(Backend(backend_id))
        backend.start()
        moves.append(
            f"UPDATE backends SET wg_ip = '{backend.host}', port = {backend.port} "
            f"WHERE id = '{backend_id}';"
        )
    published = len(pop.proxy.seen("table_published"))
    sqlite3_command(pop.database, "\n".join(["BEGIN;", *moves, "COMMIT;"]))
    pop.proxy.wait_for("table_published", published + 1)


def await_only(pop: Pop, backend_id: str) -> None:
    """Wait until all new clients reach this backend."""
    wait_until(lambda: {pop.reached() for _ in range(3)} == {backend_id}, f"only {backend_id}")


def nearest(pop: Pop) -> list[str]:
    return [pop.reached(source) for source in (BRAZIL, UNITED_STATES, GERMANY)]


def test_the_documented_insert_works_on_the_database_that_the_proxy_has_made(pop: Pop) -> None:
    proxy = pop.serve()

    sqlite3_command(pop.database, DOCUMENTED_INSERT)

    proxy.wait_for("table_published", backends="3", skipped="0")
    use_real_backends(pop)
    assert nearest(pop) == ["sa-node-1", "us-node-1", "eu-node-1"]


def test_the_documented_table_and_insert_work_on_an_empty_file(pop: Pop) -> None:
    pop.database.touch()
    proxy = pop.serve()
    proxy.wait_for("database_without_table")

    sqlite3_command(pop.database, DOCUMENTED_TABLE)
    proxy.wait_for("database_recovered")
    sqlite3_command(pop.database, DOCUMENTED_INSERT)

    proxy.wait_for("table_published", backends="3", skipped="0")
    use_real_backends(pop)
    assert nearest(pop) == ["sa-node-1", "us-node-1", "eu-node-1"]


def test_the_documented_table_and_insert_work_on_a_file_made_anew(pop: Pop) -> None:
    proxy = pop.serve()
    pop.database.unlink()

    sqlite3_command(pop.database, DOCUMENTED_TABLE + DOCUMENTED_INSERT)

    proxy.wait_for("table_published", backends="3", skipped="0")
    use_real_backends(pop)
    assert nearest(pop) == ["sa-node-1", "us-node-1", "eu-node-1"]


def test_an_edit_is_followed_at_the_next_look(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    pop.serve(EDGEPROXY_DB_RELOAD_SECS="1")

    for gone, there in (("a", "b"), ("b", "a")):
        execute(pop.database, f"UPDATE backends SET healthy = (id <> '{gone}')")
        await_only(pop, there)


def test_sighup_has_the_database_looked_at_at_once(pop: Pop) -> None:
    pop.backend("a")
    later = [pop.keep(Backend(name)) for name in ("b", "c")]
    for backend in later:
        backend.start()
    proxy = pop.serve(EDGEPROXY_DB_RELOAD_SECS="600")

    for backend in later:  # the first time in the first moment after the start
        execute(pop.database, f"DELETE FROM backends; {row(backend)}")
        proxy.send(signal.SIGHUP)
        wait_until(lambda: pop.reached() == backend.id, "the edit", deadline_secs=5)  # noqa: B023


def test_malformed_rows_are_skipped_and_named_and_the_rest_routes(pop: Pop) -> None:
    pop.backend("good")
    proxy = pop.serve()

    proxy.edit(
        """
        INSERT INTO backends VALUES ('no-port', 'myapp', 'sa', '127.0.0.1', NULL, 1, 1, 1, 1, 0);
        INSERT INTO backends VALUES ('high-port', 'myapp', 'sa', '127.0.0.1', 70000, 1, 1, 1, 1, 0);
        INSERT INTO backends VALUES ('heavy', 'myapp', 'sa', '127.0.0.1', 9, 1, 'lots', 1, 1, 0);
        INSERT INTO backends VALUES ('soft', 'myapp', 'sa', '127.0.0.1', 9, 1, 1, -1, 1, 0);
        INSERT INTO backends VALUES ('hard', 'myapp', 'sa', '127.0.0.1', 9, 1, 1, 1, -1, 0);
        INSERT INTO backends VALUES ('name', 'myapp', 'sa', 'localhost', 9, 1, 1, 1, 1, 0);
        INSERT INTO backends VALUES (NULL, 'myapp', 'sa', '127.0.0.1', 9, 1, 1, 1, 1, 0);
        INSERT INTO backends (id) VALUES ('only-an-id');
        UPDATE backends SET weight = 2 WHERE id = 'good';
        """
    )

    assert proxy.seen("table_published")[-1]["skipped"] == "8"
    reasons = {line["id"]: line["reason"] for line in proxy.seen("row_skipped")}
    assert reasons.keys() == {
        *("no-port", "high-port", "heavy", "soft", "hard", "name", "only-an-id"),
        "row 8",
    }
    assert "port NULL" in reasons["no-port"]
    assert "70000" in reasons["high-port"]
    assert "65535" in reasons["high-port"]
    assert "weight 'lots'" in reasons["heavy"]
    assert "soft_limit -1" in reasons["soft"]
    assert "hard_limit -1" in reasons["hard"]
    assert "'localhost'" in reasons["name"]
    assert {pop.reached() for _ in range(10)} == {"good"}


def test_a_malformed_row_is_named_once_and_routes_as_soon_as_it_is_mended(pop: Pop) -> None:
    pop.backend("good")
    mended = pop.keep(Backend("mended"))
    mended.start()
    proxy = pop.serve()

    proxy.edit(row(mended, weight=-1) + "UPDATE backends SET weight = 2 WHERE id = 'good'")
    for weight in (3, 4):
        proxy.edit(f"UPDATE backends SET weight = {weight} WHERE id = 'good'")
    assert len(proxy.seen("row_skipped", id="mended")) == 1

    proxy.edit("UPDATE backends SET weight = 100 WHERE id = 'mended'")
    assert "mended" in {pop.reached() for _ in range(5)}


def test_a_row_cannot_forge_a_line_of_the_log(pop: Pop) -> None:
    pop.backend("good")
    proxy = pop.serve()

    proxy.edit(
        "INSERT INTO backends VALUES ('x' || char(10) || 'forged y=1', 'myapp', 'sa', "
        "'127.0.0.1', 9, 1, 1, 1, 1, 0); UPDATE backends SET weight = 2 WHERE id = 'good'"
    )

    (line,) = proxy.seen("row_skipped")
    assert line["id"] == "x\nforged y=1"
    assert not proxy.foreign


def test_disabling_or_deleting_a_node_cuts_nobody(pop: Pop) -> None:
    pop.backend("a")
    proxy = pop.serve()
    client, _ = pop.holder()

    for sql in (
        "UPDATE backends SET healthy = 0",
        "UPDATE backends SET healthy = 1, deleted = 1",
        "UPDATE backends SET deleted = 0",
        "DELETE FROM backends",
    ):
        proxy.edit(sql)
        client.send(b"still here")
        assert client.receive(10) == b"still here"
    assert pop.reached() == ""


def test_a_moved_node_takes_new_clients_at_its_new_address(pop: Pop) -> None:
    before = pop.backend("a")
    proxy = pop.serve()
    client, _ = pop.holder()
    after = pop.keep(Backend("a"))
    after.start()

    proxy.edit(f"UPDATE backends SET port = {after.port}")

    assert pop.reached() == "a"
    assert (before.total, after.total) == (1, 1)
    client.send(b"still here")
    assert client.receive(10) == b"still here"


def test_a_database_with_a_write_ahead_log_is_followed_too(pop: Pop) -> None:
    pop.backend("a")
    pop.backend("b")
    sqlite3_command(pop.database, "PRAGMA journal_mode = WAL;")
    proxy = pop.serve()

    sqlite3_command(pop.database, "UPDATE backends SET healthy = 0 WHERE id = 'a';")

    proxy.wait_for("table_published", 2)
    assert {pop.reached() for _ in range(4)} == {"b"}
