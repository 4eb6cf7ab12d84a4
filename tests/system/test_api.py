"""Backends register, show life and leave over HTTP; what is registered gets clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from tests.store.editing import execute, sqlite3_command
from tests.system.api import Api, registration, running, serve
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy
from tests.system.test_lifecycle import upgraded
from tests.waiting import wait_until

pytestmark = pytest.mark.system

CURLS = r"""
curl -sS -X POST http://localhost:8081/api/v1/register \
-H "Content-Type: application/json" \
-d '{
"id": "backend-eu-1",
"app": "myapp",
"region": "eu",
"ip": "10.50.1.1",
"port": 8080,
"weight": 2,
"soft_limit": 100,
"hard_limit": 150
}'
---
curl -sS -X POST http://localhost:8081/api/v1/heartbeat/backend-eu-1
---
curl -sS http://localhost:8081/api/v1/backends
---
curl -sS http://localhost:8081/health
---
curl -sS http://localhost:8081/api/v1/backends/backend-eu-1
---
curl -sS -X DELETE http://localhost:8081/api/v1/backends/backend-eu-1
---
curl -sS http://localhost:8081/api/v1/backends
"""


def pause(secs: float) -> None:
    """Let so much time pass: what is tested is what happens in it, or does not."""
    asyncio.run(asyncio.sleep(secs))


def test_the_documented_commands_do_what_is_documented(pop: Pop) -> None:
    api = serve(pop)
    said = []
    for command in CURLS.split("---"):
        line = command.strip().replace("localhost:8081", f"localhost:{api.address[1]}")
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        said.append(json.loads(ran.stdout))
    registered, beat, listed, health, one, left, after = said
    stored = {
        "id": "backend-eu-1",
        "app": "myapp",
        "region": "eu",
        "country": "DE",
        "ip": "10.50.1.1",
        "port": 8080,
        "weight": 2,
        "soft_limit": 100,
        "hard_limit": 150,
    }
    assert stored.items() <= registered.items()
    assert (registered["status"], registered["ttl_secs"]) == ("registered", 60)
    assert (beat["id"], beat["status"]) == ("backend-eu-1", "ok")
    assert stored.items() <= listed["backends"][0].items()
    assert stored.items() <= one.items()
    assert (health["status"], health["backends"]) == ("ok", 1)
    assert isinstance(health["uptime_secs"], int)
    assert health["version"]
    assert left == {"id": "backend-eu-1", "status": "deregistered"}
    assert after["backends"] == []


def test_whoever_registers_gets_the_next_client(pop: Pop) -> None:
    api = serve(pop)
    assert api.ask("GET", "/ready").status == 503
    backend = running(pop, "a")
    answer = api.register(backend)
    assert pop.reached() == "a"
    assert (answer.status, answer.said["state"], answer.said["weight"]) == (201, "eligible", 2)
    assert (answer.said["soft_limit"], answer.said["hard_limit"]) == (100, 150)
    assert api.ask("GET", "/ready")[:2] == (200, {"ready": True, "reason": None})


def test_registering_again_updates_and_leaving_takes_out(pop: Pop) -> None:
    api = serve(pop)
    first, second = running(pop, "first"), running(pop, "second")
    assert api.register(first, id="a", country="BR").status == 201
    answer = api.register(second, id="a", weight=7)
    assert (answer.status, answer.said["status"], answer.said["weight"]) == (200, "updated", 7)
    assert pop.reached() == "second"
    assert api.ask("DELETE", "/api/v1/backends/a").status == 200
    assert pop.reached() == ""
    assert api.ask("DELETE", "/api/v1/backends/a").status == 404
    assert api.ask("GET", "/api/v1/backends/a").status == 404
    assert api.beat("a") == 404


def test_what_is_registered_survives_a_restart_with_a_new_lease(pop: Pop) -> None:
    settings = {"EDGEPROXY_HEARTBEAT_TTL_SECS": "1.5"}
    api = serve(pop, **settings)
    api.register(running(pop, "a"), country="AR")
    pop.proxy.stop()
    api = serve(pop, **settings)
    listed = api.listed()["a"]
    assert (listed["country"], listed["registered"]) == ("AR", True)
    assert listed["lease"]["expires_in_secs"] > 1
    assert pop.reached() == "a"
    assert api.beat("a") == 200
    pop.proxy.wait_for("lease_expired", backend="a")
    wait_until(lambda: api.beat("a") == 404, "a 404")


def test_a_backend_is_gone_at_its_ttl_and_not_before(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="2")
    pop.keep(running(pop, "other"))
    api.register(running(pop, "a"))
    last = 0.0
    for _ in range(3):
        pause(0.7)
        last = time.monotonic()
        assert api.beat("a") == 200
    pop.proxy.wait_for("lease_expired", backend="a")
    assert time.monotonic() - last > 1.9
    pop.proxy.wait_for("backend_deregistered", backend="a", reason="expired")
    assert pop.reached() == ""
    assert api.beat("a") == 404
    assert api.listed() == {}
    with closing(sqlite3.connect(pop.database)) as connection:
        ((backend_id, ended_at),) = connection.execute("SELECT id, ended_at FROM edgeproxy_leases")
    assert backend_id == "a"
    assert time.time() - 20 < ended_at <= time.time()
    assert api.register(running(pop, "b"), id="a").status == 201
    assert pop.reached() == "b"


def test_one_that_is_withheld_is_gone_for_everybody_but_for_those_who_look_at_rows(
    pop: Pop,
) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="0.5")
    backend = running(pop, "a")
    api.register(backend)
    api.ask("POST", "/api/v1/backends/a/disable")
    pop.proxy.wait_for("backend_deregistered", backend="a")
    one = "/api/v1/backends/a"
    for method, path, body in (
        ("GET", one, None),
        ("DELETE", one, None),
        ("POST", f"{one}/enable", None),
        ("PUT", f"{one}/weight", {"weight": 3}),
        ("POST", f"{one}/drain", None),
    ):
        assert api.ask(method, path, body).status == 404, path
    assert api.beat("a") == 404
    (row,) = json.loads(run_edgeproxy("db", "show", "--json", folder=pop.folder).stdout)
    assert (row["id"], row["healthy"]) == ("a", 0)
    assert "its lease has ended" in row["fault"]
    answer = api.register(backend)
    assert (answer.status, answer.said["state"]) == (201, "unhealthy")
    pop.proxy.wait_for("backend_deregistered", 2)
    added = ("node", "add", "a", "sa", "127.0.0.1", str(backend.port))
    assert run_edgeproxy(*added, folder=pop.folder).returncode == 0
    wait_until(lambda: pop.reached() == "a", "the operator's node")
    assert api.register(backend).status == 409


def test_one_that_registers_after_its_lease_has_expired_gets_the_next_client(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="0.1")
    backend = running(pop, "a")
    for number in range(1, 6):
        assert api.register(backend).said["state"] == "eligible"
        pop.proxy.wait_for("backend_deregistered", number)


def test_a_backend_that_cannot_be_deleted_yet_gets_no_clients(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="1")
    api.register(running(pop, "a"))
    with closing(sqlite3.connect(pop.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        pop.proxy.wait_for("lease_expired", backend="a")
        wait_until(lambda: pop.reached() == "", "nobody is reached")
        assert api.listed()["a"]["state"] == "lease expired"
        answer = api.register(running(pop, "b"))  # waits for the lock, and gives up
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "locked" in answer.said["error"]
        connection.execute("COMMIT")
    pop.proxy.wait_for("backend_deregistered", backend="a")
    assert api.register(running(pop, "c"), id="a").status == 201
    wait_until(lambda: pop.reached() == "c", "the new one is reached")


def test_nodes_of_operators_have_no_lease(pop: Pop) -> None:
    pop.backend("mine")
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="0.5")
    api.register(running(pop, "a"))
    pop.proxy.wait_for("backend_deregistered", backend="a")
    listed = api.listed()
    assert [(each, listed[each]["registered"]) for each in listed] == [("mine", False)]
    assert api.beat("mine") == 404
    answer = api.ask("DELETE", "/api/v1/backends/mine")
    assert (answer.status, answer.said["field"]) == (409, "id")
    assert pop.reached() == "mine"


def test_a_node_of_an_operator_cannot_be_taken_over(pop: Pop) -> None:
    pop.backend("mine")
    api = serve(pop)
    for removed in (False, True):
        if removed:
            run_edgeproxy("node", "remove", "mine", folder=pop.folder)
        answer = api.register(running(pop, "b"), id="mine")
        assert (answer.status, answer.said["field"]) == (409, "id")
        assert "edgeproxy node delete" in answer.said["error"]
        assert api.ask("DELETE", "/api/v1/backends/mine").status == 409
    run_edgeproxy("node", "enable", "mine", folder=pop.folder)
    pop.proxy.send(signal.SIGHUP)
    wait_until(lambda: pop.reached() == "mine", "it is as it was")
    run_edgeproxy("node", "delete", "mine", folder=pop.folder)
    assert api.register(running(pop, "b"), id="mine").status == 201


def test_what_operators_say_of_a_registered_backend_stays(pop: Pop) -> None:
    api = serve(pop)
    backend = running(pop, "a")
    api.register(backend)
    for command in ("disable", "remove"):
        assert run_edgeproxy("node", command, "a", folder=pop.folder).returncode == 0
        assert api.register(backend, weight=3).status == 200
        assert pop.reached() == ""
    one = api.ask("GET", "/api/v1/backends/a").said
    assert (one["healthy"], one["deleted"], one["weight"]) == (False, True, 3)
    run_edgeproxy("node", "enable", "a", folder=pop.folder)
    pop.proxy.send(signal.SIGHUP)
    wait_until(lambda: pop.reached() == "a", "a is back")
    run_edgeproxy("node", "delete", "a", folder=pop.folder)
    pop.proxy.send(signal.SIGHUP)
    wait_until(lambda: api.beat("a") == 404, "its lease has ended with its row")


def test_changes_of_nodes_are_those_of_the_commands(pop: Pop) -> None:
    pop.backend("a")
    api = serve(pop)
    one = "/api/v1/backends/a"
    assert api.ask("PUT", f"{one}/weight", {"weight": 9}).said["weight"] == 9
    said = api.ask("PUT", f"{one}/limits", {"soft_limit": 5, "hard_limit": 6}).said
    assert (said["soft_limit"], said["hard_limit"]) == (5, 6)
    wrong = api.ask("PUT", f"{one}/limits", {"soft_limit": 7, "hard_limit": 6})
    assert (wrong.status, wrong.said["field"]) == (400, "soft_limit")
    assert api.ask("POST", f"{one}/disable").said["state"] == "unhealthy"
    assert pop.reached() == ""
    assert api.ask("POST", f"{one}/enable").said["state"] == "eligible"
    assert api.ask("POST", f"{one}/drain").said["state"] == "draining"
    assert pop.reached() == ""
    assert api.ask("POST", f"{one}/undrain").said["draining"] is False
    holder, _ = pop.holder()
    assert api.listed()["a"]["active_connections"] == 1
    (session,) = api.ask("GET", "/api/v1/sessions").said["sessions"]
    assert session["backend"] == "a"
    holder.close()
    explained = api.ask("GET", "/api/v1/explain?client=192.0.2.1").said
    assert explained["backend"] == "a"
    for path, reason in (
        ("/api/v1/explain?client=192.0.2.1&ap=web", "there is no parameter 'ap': client and app"),
        ("/api/v1/explain?client=somebody", "client 'somebody' is not an IPv4 or IPv6 address"),
    ):
        answer = api.ask("GET", path)
        assert answer.status == 400
        assert answer.said["error"].startswith(reason)
    answer = api.ask("GET", "/api/v1/register")
    assert (answer.status, answer.said["error"]) == (
        405,
        "this path allows POST; see /openapi.json",
    )
    table = api.ask("GET", "/api/v1/table").said
    assert (table["backends"], table["eligible"], table["leases"]) == (1, 1, 0)
    assert api.ask("POST", "/api/v1/backends/b/drain").status == 404
    with closing(sqlite3.connect(pop.database)) as connection:
        row = connection.execute("SELECT weight, soft_limit, hard_limit FROM backends").fetchone()
    assert row == (9, 5, 6)


def test_a_faulty_row_can_be_changed_and_its_fault_is_told(pop: Pop) -> None:
    backend = pop.backend("a")
    execute(pop.database, "UPDATE backends SET weight = 'heavy', port = 0")
    api = serve(pop)
    assert api.ask("GET", "/api/v1/backends/a").status == 404
    answer = api.ask("PUT", "/api/v1/backends/a/weight", {"weight": 9})
    assert (answer.status, answer.said["field"]) == (409, "id")
    assert "port" in answer.said["error"]
    (kept,) = sqlite3_command(pop.database, "SELECT weight FROM backends").split()
    assert kept == "heavy", "after a 4xx nothing has changed"
    execute(pop.database, f"UPDATE backends SET port = {backend.port}")
    assert api.ask("PUT", "/api/v1/backends/a/weight", {"weight": 9}).status == 200
    execute(pop.database, "UPDATE backends SET soft_limit = 'many'")
    limits = {"soft_limit": 5, "hard_limit": 6}
    answer = api.ask("PUT", "/api/v1/backends/a/limits", limits)
    assert (answer.status, answer.said["weight"]) == (200, 9)
    assert pop.reached() == "a"


def test_heartbeats_write_nothing(pop: Pop) -> None:
    api = serve(pop)
    backend = running(pop, "a")
    api.register(backend)
    before = pop.database.stat()
    for _ in range(50):
        assert api.beat("a") == 200
    assert api.register(backend).status == 200  # nor what is the same again
    after = pop.database.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_backends_that_fall_silent_together_keep_their_clients(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="1", EDGEPROXY_METRICS_ENABLED="false")
    for name in "abcde":
        api.register(running(pop, name))
    pop.proxy.wait_for("leases_held_back")
    pause(1.5)
    assert len(api.listed()) == 5
    assert api.ask("GET", "/api/v1/table").said["expiry_held_back"] is True
    assert pop.reached()
    for name in "abc":
        assert api.beat(name) == 200
    pop.proxy.wait_for("leases_resumed")
    deadline = time.monotonic() + 10
    while len(pop.proxy.seen("backend_deregistered")) < 2:
        assert time.monotonic() < deadline, pop.proxy.told()
        assert [api.beat(name) for name in "abc"] == [200] * 3
        pause(0.1)
    assert set(api.listed()) == {"a", "b", "c"}


def test_a_proxy_that_stood_still_blames_nobody(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="2")
    api.register(running(pop, "a"))
    pop.proxy.send(signal.SIGSTOP)
    pause(3.0)
    pop.proxy.send(signal.SIGCONT)
    assert api.beat("a") == 200
    assert pop.reached() == "a"


def test_a_thousand_register_at_the_same_moment(pop: Pop) -> None:
    api = serve(pop)
    target = running(pop, "target")
    bodies = [registration(target, id=f"backend-{number}") for number in range(1000)]
    began = time.monotonic()
    assert api.register_at_once(bodies) == [201] * 1000
    print(f"1,000 registrations: {time.monotonic() - began:.2f} s")
    assert len(api.listed()) == 1000
    assert pop.reached() == "target"
    assert len(pop.proxy.seen("table_published")) < 200


def test_a_proxy_that_drains_says_so_and_writes_nothing(pop: Pop) -> None:
    api = serve(pop)
    api.register(running(pop, "a"))
    holder, _ = pop.holder()
    pop.proxy.send(signal.SIGTERM)
    pop.proxy.wait_for("draining")
    answer = api.ask("GET", "/ready")
    assert (answer.status, answer.said["reason"]) == (503, "the proxy is draining")
    assert api.ask("GET", "/health").status == 200
    assert api.register(running(pop, "b")).status == 503
    assert api.beat("a") == 200
    holder.close()
    pop.proxy.last_words()


def test_a_database_that_is_edited_beside_the_api(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_DB_RELOAD_SECS="0.05")
    api.register(running(pop, "a"))
    execute(pop.database, "DELETE FROM backends")
    wait_until(lambda: api.beat("a") == 404, "its lease has ended with its row")
    pop.backend("a")  # somebody else's now: the side table has forgotten it
    pop.proxy.stop()
    api = serve(pop)
    assert api.listed()["a"]["registered"] is False


def test_a_successor_goes_on_with_the_api(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_HEARTBEAT_TTL_SECS="30")
    api.register(running(pop, "a"))
    with upgraded(pop.proxy):
        wait_until(lambda: not pop.proxy.is_running(), "the predecessor to end")
        assert api.beat("a") == 200
        assert api.listed()["a"]["registered"]


def test_a_predecessor_keeps_no_connection_on_which_heartbeats_would_be_lost(pop: Pop) -> None:
    api = serve(pop)
    api.register(running(pop, "a"))
    holder, _ = pop.holder()
    with closing(http.client.HTTPConnection(*api.address, timeout=20)) as kept:
        kept.request("GET", "/health")
        kept.getresponse().read()
        with upgraded(pop.proxy):
            assert pop.proxy.is_running()  # it waits for its client
            assert kept.sock.recv(1) == b""
            holder.close()


def test_the_page_for_people_shows_the_backends(pop: Pop) -> None:
    api = serve(pop)
    api.register(running(pop, "a"), id="<b>&")
    answer = api.ask("GET", "/")
    assert answer.status == 200
    assert "&lt;b&gt;&amp;" in answer.said
    assert "<b>&" not in answer.said
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert Api(pop).ask("GET", "/openapi.json").said["openapi"].startswith("3.1")
