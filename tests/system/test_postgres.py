"""A real proxy on a real PostgreSQL server: clients come all the while, whatever that does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.server import PASSWORD, Database, Server
from tests.system import clients
from tests.system.backends import Backend
from tests.system.pop import Pop
from tests.system.proxy import SERVE, RunningProxy, run_edgeproxy
from tests.waiting import wait_until

pytestmark = pytest.mark.system

RELOAD_SECS = 60.0
"""So that nothing is found by looking."""


def variables(url: str, **more: str) -> dict[str, str]:
    return {
        "EDGEPROXY_POSTGRES_ENABLED": "true",
        "EDGEPROXY_POSTGRES_URL": url,
        "EDGEPROXY_POSTGRES_RELOAD_SECS": str(RELOAD_SECS),
        "EDGEPROXY_POSTGRES_CONNECT_TIMEOUT_SECS": "1",
        "EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS": "5",
        **more,
    }


def insert(backend: Backend, *, weight: int = 1) -> str:
    return (
        "INSERT INTO backends (id, app, region, country, wg_ip, port, weight) VALUES "
        f"('{backend.id}', 'myapp', 'sa', 'BR', '{backend.host}', {backend.port}, {weight});"
    )


@pytest.fixture
def own_server() -> Iterator[Server]:
    with closing(Server()) as server:
        server.start()
        yield server


class Crowd:
    """Clients that come one after the other, all the while; every one has to be served."""

    def __init__(self, pop: Pop) -> None:
        self.reached: list[str] = []
        self._pop = pop
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._come)
        self._thread.start()

    def _come(self) -> None:
        while not self._ends.is_set():
            address = self._pop.new_address()
            self.reached.append(clients.reached(self._pop.proxy.address, address))

    def close(self) -> None:
        self._ends.set()
        self._thread.join()

    def leave(self) -> None:
        """Go, and check that everybody was served."""
        self.close()
        assert len(self.reached) > 10
        assert "" not in self.reached, f"{self.reached.count('')} of {len(self.reached)} refused"


def started(pop: Pop, url: str, **more: str) -> RunningProxy:
    proxy = pop.serve(**variables(url, **more))
    assert PASSWORD not in proxy.told()
    return proxy


def backend(pop: Pop, backend_id: str) -> Backend:
    made = pop.keep(Backend(backend_id))
    made.start()
    return made


def run(folder: Path, url: str, *words: str) -> str:
    done = run_edgeproxy(*words, folder=folder, **variables(url))
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done.stdout


def test_a_change_by_psql_is_heard_of(pop: Pop, postgres: Database) -> None:
    one, other = backend(pop, "one"), backend(pop, "other")
    proxy = started(pop, postgres.url, EDGEPROXY_POSTGRES_RELOAD_SECS="600")
    assert pop.reached() == ""
    for sql, expected in (
        (insert(one), "one"),
        (insert(other) + "UPDATE backends SET healthy = 0 WHERE id = 'one'", "other"),
        ("UPDATE backends SET healthy = 1 - healthy", "one"),
        ("DELETE FROM backends WHERE id = 'one'", ""),
    ):
        postgres.execute(sql)
        wait_until(lambda expected=expected: pop.reached() == expected, f"{expected!r}")  # type: ignore[misc]
    assert proxy.seen("ready")[0]["db"] == postgres.url.replace(PASSWORD, "***")


def test_the_commands_work_on_it(pop: Pop, postgres: Database) -> None:
    url, folder = postgres.url, pop.folder
    assert run(folder, url, "db", "init").startswith("created postgres://edgeproxy:***@")
    one = backend(pop, "one")
    run(folder, url, "node", "add", "one", "sa", one.host, str(one.port), "--country", "BR")
    proxy = started(pop, url)
    assert pop.reached() == "one"
    assert "one" in run(folder, url, "db", "show")
    assert "sa" in run(folder, url, "db", "healthy", "--json")
    assert "backend     one" in run(folder, url, "explain", "200.160.2.3")
    for words, expected in (
        (("disable", "one"), ""),
        (("enable", "one"), "one"),
        (("weight", "one", "0"), ""),
        (("weight", "one", "2"), "one"),
        (("limits", "one", "10", "20"), "one"),
        (("remove", "one"), ""),
        (("enable", "one"), "one"),
        (("delete", "one"), ""),
    ):
        run(folder, url, "node", *words)
        wait_until(lambda expected=expected: pop.reached() == expected, str(words), 2)  # type: ignore[misc]
    run(folder, url, "route", "set", "WWW.example.com", "web")
    run(folder, url, "route", "set", "www.example.com", "web2")
    listed = run(folder, url, "route", "list", "--json")
    assert listed == '[{"name": "www.example.com", "app": "web2"}]\n'
    run(folder, url, "route", "remove", "www.example.com")
    assert run(folder, url, "route", "list", "--json") == "[]\n"
    assert not (folder / "routing.db").exists()
    shown = run(folder, url, "config", "show")
    assert url.replace(PASSWORD, "***") in shown
    again = run_edgeproxy("db", "init", folder=folder, **variables(url))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    other = run_edgeproxy("db", "show", "--db", "f.db", folder=folder, **variables(url))
    assert "f.db does not exist" in other.stderr
    assert PASSWORD not in proxy.told()


def test_nobody_is_refused_while_the_server_is_killed_and_comes_back(
    pop: Pop, own_server: Server
) -> None:
    database = own_server.new_database()
    run(pop.folder, database.url, "db", "init")
    one, other = backend(pop, "one"), backend(pop, "other")
    database.execute(insert(one))
    proxy = started(pop, database.url)
    with closing(Crowd(pop)) as crowd:
        for end in (own_server.kill, own_server.stop):
            # An episode may have several reasons, and a line for each.
            unreadable = len(proxy.seen("database_unreadable"))
            recovered = len(proxy.seen("database_recovered"))
            end()
            proxy.send(signal.SIGHUP)
            proxy.wait_for("database_unreadable", unreadable + 1)
            own_server.start()
            proxy.wait_for("database_recovered", recovered + 1)
        database.execute(insert(other))
        wait_until(lambda: "other" in crowd.reached, "the new backend")
        crowd.leave()
    assert PASSWORD not in proxy.told()


def test_nobody_is_refused_while_another_host_takes_over(pop: Pop, own_server: Server) -> None:
    with closing(Server()) as second:
        second.start()
        one, other = backend(pop, "one"), backend(pop, "other")
        databases = [own_server.new_database(), second.new_database()]
        for database in databases:
            run(pop.folder, database.url, "db", "init")
            database.execute(insert(one))
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{second.port}"
        url = databases[0].url.replace(f"127.0.0.1:{own_server.port}", hosts)
        proxy = started(pop, url)
        with closing(Crowd(pop)) as crowd:
            own_server.kill()
            used = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'edgeproxy'"
            wait_until(lambda: databases[1].execute(used) == [("t",)], "the proxy")
            databases[1].execute(insert(other))
            wait_until(lambda: "other" in crowd.reached, "the new backend", 5)
            crowd.leave()
        assert not proxy.seen("table_lost_all_backends")


def test_nobody_waits_for_a_server_that_hangs(pop: Pop, own_server: Server) -> None:
    database = own_server.new_database()
    run(pop.folder, database.url, "db", "init")
    one = backend(pop, "one")
    database.execute(insert(one))
    proxy = started(pop, database.url, EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS="0.5")
    with closing(Crowd(pop)) as crowd:
        own_server.pause()
        proxy.send(signal.SIGHUP)
        proxy.wait_for("database_unreadable")
        own_server.go_on()
        proxy.wait_for("database_recovered")
        crowd.leave()


def test_a_server_that_hangs_does_not_hold_up_the_end(pop: Pop, own_server: Server) -> None:
    database = own_server.new_database()
    run(pop.folder, database.url, "db", "init")
    more = {
        "EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS": "60",
        "EDGEPROXY_POSTGRES_CONNECT_TIMEOUT_SECS": "60",
    }
    proxy = started(pop, database.url, **more)
    own_server.pause()
    proxy.send(signal.SIGHUP)
    with RunningProxy(pop.folder, variables(database.url, **more)) as other:
        other.wait_for("geo")
        for each in (proxy, other):
            each.send(signal.SIGTERM)
            assert each.wait_for_exit(30) == 0, each.told()


def test_a_start_waits_for_the_server_and_says_so(pop: Pop, own_server: Server) -> None:
    database = own_server.new_database()
    own_server.stop()
    pop.proxy = proxy = pop.begin_to_serve(SERVE, None, **variables(database.url))
    told = proxy.wait_for("database_awaited")
    assert "cannot be reached" in told["reason"]
    own_server.start()
    proxy.wait_until_ready()
    assert PASSWORD not in proxy.told()


def test_who_waits_for_the_server_can_be_stopped(pop: Pop, own_server: Server) -> None:
    database = own_server.new_database()
    own_server.stop()
    with RunningProxy(pop.folder, variables(database.url)) as proxy:
        proxy.wait_for("database_awaited")
        proxy.send(signal.SIGTERM)
        assert proxy.wait_for_exit(5) == 0


def test_a_start_without_the_server_serves_from_the_snapshot(pop: Pop, own_server: Server) -> None:
    database = own_server.new_database()
    run(pop.folder, database.url, "db", "init")
    one, other = backend(pop, "one"), backend(pop, "other")
    database.execute(insert(one))
    kept = {"EDGEPROXY_POSTGRES_SNAPSHOT": str(pop.folder / "kept")}
    started(pop, database.url, **kept).stop()
    own_server.stop()
    proxy = started(pop, database.url, **kept)
    with closing(Crowd(pop)) as crowd:
        proxy.wait_for("snapshot_used", backends="1")
        own_server.start()
        database.execute(insert(other))
        wait_until(lambda: "other" in crowd.reached, "the new backend")
        crowd.leave()


def test_an_upgrade_does_not_make_a_table_that_is_missing(pop: Pop, postgres: Database) -> None:
    run(pop.folder, postgres.url, "db", "init")
    one = backend(pop, "one")
    postgres.execute(insert(one))
    proxy = started(pop, postgres.url)
    postgres.execute("ALTER TABLE backends RENAME TO elsewhere")
    with closing(Crowd(pop)) as crowd:
        proxy.send(signal.SIGUSR2)
        proxy.wait_for("database_awaited")  # by the successor
        postgres.execute("ALTER TABLE elsewhere RENAME TO backends")
        successor = int(proxy.wait_for("upgraded")["successor"])
        crowd.leave()
    os.kill(successor, signal.SIGTERM)
    assert proxy.wait_for_exit(5) == 0
    assert not proxy.seen("database_created")


def test_nodes_are_taken_over_and_back(pop: Pop, postgres: Database) -> None:
    one = backend(pop, "one")
    done = run_edgeproxy("node", "add", "one", "sa", one.host, str(one.port), folder=pop.folder)
    assert done.returncode == 0, done.stderr
    told = run(pop.folder, postgres.url, "db", "migrate", "--from", "sqlite", "--to", "postgres")
    assert "1 nodes added" in told
    started(pop, postgres.url)
    assert pop.reached() == "one"
    run(pop.folder, postgres.url, "node", "add", "two", "sa", "10.0.0.2")
    words = ("db", "migrate", "--from", "postgres", "--to", "sqlite")
    assert "1 nodes added, 0 replaced, 1 unchanged" in run(pop.folder, postgres.url, *words)
    wrong = run_edgeproxy(*words[:4], "--to", "postgres", folder=pop.folder)
    assert wrong.returncode == 2


def test_a_bad_url_ends_the_start_without_showing_the_password(pop: Pop) -> None:
    for url in ("postgres://u:hidden-pw@h:0/db", "mysql://u:hidden-pw@h/db"):
        done = run_edgeproxy("serve", folder=pop.folder, **variables(url))
        assert done.returncode == 2
        assert "EDGEPROXY_POSTGRES_URL='***': " in done.stderr
        assert "hidden-pw" not in done.stderr
    done = run_edgeproxy("serve", folder=pop.folder, EDGEPROXY_POSTGRES_ENABLED="yes")
    assert done.returncode == 2
    assert "set EDGEPROXY_POSTGRES_URL, too" in done.stderr
