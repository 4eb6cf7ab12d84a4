"""Backends register with a POP whose routing database is on a server, and others follow."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.store.server import PASSWORD, Database, Server
from tests.system.api import Api, registration, running, serve
from tests.system.pop import Pop
from tests.system.test_lifecycle import upgraded
from tests.system.test_postgres import Crowd, variables
from tests.waiting import wait_until

pytestmark = pytest.mark.system

TTL = "EDGEPROXY_HEARTBEAT_TTL_SECS"


@pytest.fixture
def new_pop(tmp_path: Path) -> Iterator[Callable[[], Pop]]:
    """Make further POPs."""
    with ExitStack() as opened:

        def make() -> Pop:
            folder = tmp_path / f"pop{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return opened.enter_context(closing(Pop(folder)))

        yield make


def serve_on(pop: Pop, database: Database, **more: str) -> Api:
    return serve(pop, **variables(database.url), **more)


class Heart:
    """Sends heartbeats when it is asked, and registers again after a 404."""

    def __init__(self, api: Api, backend_id: str) -> None:
        self.api = api
        self.backend_id = backend_id
        self.answers: list[int] = []

    def beat(self) -> bool:
        self.answers.append(self.api.beat(self.backend_id))
        return self.answers[-1] == 200

    def beat_until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(lambda: (self.beat(), condition())[1], what)


def ids(database: Database) -> list[tuple[str, ...]]:
    """Return the backends with a live lease."""
    return database.execute(
        "SELECT DISTINCT id FROM edgeproxy_leases WHERE ended_at IS NULL ORDER BY id"
    )


def test_a_backend_that_registers_at_one_pop_gets_clients_at_all_pops(
    new_pop: Callable[[], Pop], postgres: Database
) -> None:
    here, there = new_pop(), new_pop()
    api, other = serve_on(here, postgres), serve_on(there, postgres)
    answer = api.register(running(here, "a"), country="AR")
    assert here.reached() == "a"
    assert (answer.status, answer.said["state"], answer.said["country"]) == (201, "eligible", "AR")
    wait_until(lambda: there.reached() == "a", "the other POP")
    assert (api.listed()["a"]["registered"], other.listed()["a"]["registered"]) == (True, False)
    assert (api.beat("a"), other.beat("a")) == (200, 404)
    assert PASSWORD not in here.proxy.told() + there.proxy.told()


def test_one_that_falls_silent_is_taken_out_everywhere_by_its_home(
    new_pop: Callable[[], Pop], postgres: Database
) -> None:
    here, there = new_pop(), new_pop()
    api, other = serve_on(here, postgres, **{TTL: "2"}), serve_on(there, postgres, **{TTL: "0.5"})
    last = time.monotonic()
    api.register(running(here, "a"))
    other.register(running(there, "b"))
    wait_until(lambda: here.reached() == "a", "the one that is left")
    here.proxy.wait_for("backend_deregistered", backend="a", reason="expired")
    assert time.monotonic() - last > 1.9
    wait_until(lambda: there.reached() == "", "the other POP")
    assert ids(postgres) == []
    assert api.listed() == other.listed() == {}
    assert [each["backend"] for each in there.proxy.seen("lease_expired")] == ["b"]


def test_a_backend_that_goes_to_another_pop_is_not_missed_at_its_first(
    new_pop: Callable[[], Pop], postgres: Database
) -> None:
    here, there = new_pop(), new_pop()
    api, other = serve_on(here, postgres, **{TTL: "1"}), serve_on(there, postgres, **{TTL: "1"})
    backend = running(here, "a")
    api.register(backend)
    wait_until(lambda: there.reached() == "a", "both POPs")
    with closing(Crowd(here)) as crowd, closing(Crowd(there)) as other_crowd:
        assert other.beat("a") == 404
        assert other.register(backend).status == 200
        heart = Heart(other, "a")
        heart.beat_until(lambda: not api.listed()["a"]["registered"], "its first home lets it go")
        begun = time.monotonic()
        heart.beat_until(lambda: time.monotonic() - begun > 1.5, "more than a TTL")
        crowd.leave()
        other_crowd.leave()
    assert set(heart.answers) == {200}
    assert here.proxy.seen("lease_moved", backend="a")
    assert not here.proxy.seen("lease_expired") + here.proxy.seen("backend_deregistered")
    there.proxy.wait_for("backend_deregistered", backend="a")
    wait_until(lambda: here.reached() == there.reached() == "", "it is gone at both")


def test_one_that_comes_back_at_another_pop_gets_clients_at_the_first_as_well(
    new_pop: Callable[[], Pop], postgres: Database
) -> None:
    here, there = new_pop(), new_pop()
    api, other = serve_on(here, postgres, **{TTL: "0.5"}), serve_on(there, postgres)
    backend = running(here, "a")
    for number in (1, 2, 3):
        assert api.register(backend).status == 201
        here.proxy.wait_for("lease_expired", number)
        assert other.register(backend).status in (200, 201)  # withheld already, or not yet
        wait_until(lambda: here.reached() == there.reached() == "a", "both POPs")
        assert other.ask("DELETE", "/api/v1/backends/a").status == 200
        wait_until(lambda: here.reached() == there.reached() == "", "it has left")


def test_one_that_registers_with_two_pops_shows_life_at_either(
    new_pop: Callable[[], Pop], postgres: Database
) -> None:
    here, there = new_pop(), new_pop()
    api, other = serve_on(here, postgres, **{TTL: "2"}), serve_on(there, postgres, **{TTL: "2"})
    backend = running(here, "a")
    api.register(backend)
    begun = time.monotonic()
    assert other.register(backend).status == 200
    heart = Heart(api, "a")
    heart.beat_until(lambda: time.monotonic() - begun > 3, "more than a TTL")
    assert set(heart.answers) == {200}
    assert not there.proxy.seen("lease_expired") + there.proxy.seen("backend_deregistered")


def test_what_is_registered_survives_a_restart_with_a_new_lease(
    pop: Pop, postgres: Database
) -> None:
    more = {TTL: "1.5", "EDGEPROXY_API_HOME": "pop-1"}  # where it listens is another one after it
    api = serve_on(pop, postgres, **more)
    api.register(running(pop, "a"))
    pop.proxy.stop()
    api = serve_on(pop, postgres, **more)
    assert api.listed()["a"]["lease"]["expires_in_secs"] > 1
    assert api.beat("a") == 200
    pop.proxy.wait_for("backend_deregistered", backend="a")
    assert ids(postgres) == []


def test_a_successor_goes_on_with_the_api(pop: Pop, postgres: Database) -> None:
    api = serve_on(pop, postgres)
    api.register(running(pop, "a"))
    with upgraded(pop.proxy):
        wait_until(lambda: not pop.proxy.is_running(), "the predecessor to end")
        assert api.beat("a") == 200
        assert api.register(running(pop, "b")).status == 201


def test_a_thousand_register_at_the_same_moment(pop: Pop, postgres: Database) -> None:
    api = serve_on(pop, postgres)
    target = running(pop, "target")
    bodies = [registration(target, id=f"backend-{number}") for number in range(1000)]
    begun = time.monotonic()
    assert api.register_at_once(bodies) == [201] * 1000
    print(f"1,000 registrations: {time.monotonic() - begun:.2f} s")
    assert len(api.listed()) == 1000
    assert pop.reached() == "target"


def test_changes_of_nodes_are_those_of_the_commands(pop: Pop, postgres: Database) -> None:
    api = serve_on(pop, postgres)
    api.register(running(pop, "a"))
    one = "/api/v1/backends/a"
    assert api.ask("PUT", f"{one}/weight", {"weight": 9}).said["weight"] == 9
    said = api.ask("PUT", f"{one}/limits", {"soft_limit": 5, "hard_limit": 6}).said
    assert (said["soft_limit"], said["hard_limit"]) == (5, 6)
    assert api.ask("POST", f"{one}/disable").said["state"] == "unhealthy"
    assert pop.reached() == ""
    assert api.ask("POST", f"{one}/enable").said["state"] == "eligible"
    assert pop.reached() == "a"
    assert api.ask("PUT", "/api/v1/backends/b/weight", {"weight": 9}).status == 404
    assert api.ask("DELETE", one).status == 200
    assert pop.reached() == ""


def test_while_the_server_is_down_leases_are_kept_and_no_client_is_refused(
    pop: Pop, own_server: Server
) -> None:
    api = serve_on(pop, own_server.new_database(), **{TTL: "3"})
    heart = Heart(api, "a")
    api.register(running(pop, "a"))
    other = running(pop, "b")
    with closing(Crowd(pop)) as crowd:
        own_server.kill()
        begun = time.monotonic()
        answer = api.register(other)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert PASSWORD not in answer.said["error"]
        heart.beat_until(lambda: time.monotonic() - begun > 4, "more than a TTL")
        own_server.start()
        heart.beat_until(lambda: api.register(other).status in (200, 201), "registering again")
        wait_until(lambda: "b" in crowd.reached, "the new one")
        crowd.leave()
    assert set(heart.answers) == {200}
    assert not pop.proxy.seen("lease_expired")


def test_one_whose_lease_ends_while_the_server_is_down_gets_no_clients(
    pop: Pop, own_server: Server
) -> None:
    database = own_server.new_database()
    api = serve_on(pop, database, **{TTL: "2"})
    api.register(running(pop, "a"))
    own_server.kill()
    pop.proxy.wait_for("lease_expired", backend="a")
    wait_until(lambda: pop.reached() == "", "nobody is reached")
    assert api.listed()["a"]["state"] == "lease expired"
    own_server.start()
    pop.proxy.wait_for("backend_deregistered", backend="a")
    assert ids(database) == []


def test_a_start_from_the_snapshot_takes_up_the_leases_when_the_server_is_back(
    pop: Pop, own_server: Server
) -> None:
    more = {"EDGEPROXY_POSTGRES_SNAPSHOT": "kept.json", "EDGEPROXY_API_HOME": "pop-1"}
    database = own_server.new_database()
    backend = running(pop, "a")
    serve_on(pop, database, **more).register(backend)
    pop.proxy.stop()
    own_server.stop()
    api = serve_on(pop, database, **more)
    assert pop.reached() == "a"
    assert api.beat("a") == 404
    assert api.register(backend).status == 503
    own_server.start()
    wait_until(lambda: api.beat("a") == 200, "its lease")
    assert api.register(backend).status == 200


def test_a_server_that_hangs_holds_up_no_heartbeat_and_not_the_end(
    pop: Pop, own_server: Server
) -> None:
    api = serve_on(pop, own_server.new_database())
    api.register(running(pop, "a"))
    own_server.pause()
    assert api.register(running(pop, "b")).status == 503
    assert api.beat("a") == 200
    assert api.ask("GET", "/ready").status == 200
    pop.proxy.send(signal.SIGTERM)
    pop.proxy.last_words()  # the server still hangs
