"""Listeners are added, changed and taken out while the proxy runs; nobody who waits is lost."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.conformance.peers import Peer
from tests.ports import free_port
from tests.store.editing import execute
from tests.system import clients
from tests.system.listeners import Configured, section, where
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy
from tests.system.test_lifecycle import Storm, upgraded
from tests.waiting import wait_until
from tests.wire import hellos

pytestmark = pytest.mark.system

FIRST, SECOND, THIRD = "127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"


def start(pop: Pop, *listeners: str, **variables: str) -> Configured:
    pop.backend("w1", app="web", hard_limit=0)
    pop.backend("d1", app="db", hard_limit=0)
    return Configured(pop, *listeners, **variables)


def test_listeners_come_and_go_and_connections_stay(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web")
    run.change(f"{FIRST}=web", f"{SECOND}=db")
    second = where(run.proxy, "db")
    holder = pop.keep(clients.connect(second))
    assert clients.greeting(holder) == "d1"
    assert pop.reached() == "w1"

    run.change(f"{FIRST}=web")
    run.proxy.wait_for("listener_closed", listen=SECOND)
    with pytest.raises(ConnectionRefusedError):
        clients.connect(second)
    holder.send(b"goes on")
    holder.end()
    assert holder.rest() == (b"goes on", False)
    assert pop.reached() == "w1"


def test_the_first_listener_may_go_too(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web")
    run.change(f"{SECOND}=db")
    run.proxy.wait_for("listener_closed", listen=FIRST)
    assert clients.reached(where(run.proxy, "db")) == "d1"
    with pytest.raises(ConnectionRefusedError):
        clients.connect(run.proxy.address)


def test_a_watched_file_is_enough(pop: Pop) -> None:
    run = start(
        pop,
        f"{FIRST}=web",
        EDGEPROXY_CONFIG_WATCH_ENABLED="true",
        EDGEPROXY_CONFIG_WATCH_INTERVAL_SECS="0.2",
    )
    run.path.write_text(section("listeners", listen=[f"{FIRST}=web", f"{SECOND}=db"]))
    assert clients.reached(where(run.proxy, "db")) == "d1"


def test_what_cannot_be_opened_is_told_once_and_opened_as_soon_as_it_can(pop: Pop) -> None:
    control = str(pop.folder / "control")
    run = start(pop, f"{FIRST}=web", EDGEPROXY_CONTROL_SOCKET=control)
    taken = pop.keep(socket.create_server(("127.0.0.1", 0)))
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    run.change(f"{FIRST}=web", f"{address}=db", f"{SECOND}=db")
    failed = run.proxy.wait_for("listener_failed")
    assert failed["listen"] == address
    assert "Address already in use" in failed["reason"]
    told = run_edgeproxy("status", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=control)
    assert f"{address} (db): FAILED\n          {failed['reason']}\n" in told.stdout
    assert clients.reached(where(run.proxy, "db")) == "d1"
    assert pop.reached() == "w1"
    taken.close()
    run.proxy.wait_for("listener_opened", listen=address)
    assert clients.reached(("127.0.0.1", int(address.partition(":")[2]))) == "d1"
    assert len(run.proxy.seen("listener_failed")) == 1


def start_without_certificates(pop: Pop, tmp_path: Path) -> Configured:
    """Serve `web` on the first address, with a folder of certificates that is empty."""
    folder = tmp_path / "certs"
    folder.mkdir()
    return start(pop, f"{FIRST}=web", EDGEPROXY_TLS_CERT_DIR=str(folder))


def test_tls_without_usable_certificates_leaves_the_address_as_it_is(
    pop: Pop, tmp_path: Path
) -> None:
    run = start_without_certificates(pop, tmp_path)
    run.change(f"{FIRST}=tls:web")
    assert "holds no certificates" in run.proxy.wait_for("listener_failed")["reason"]
    assert pop.reached() == "w1"
    run.change(f"{FIRST}=web", f"{SECOND}=db")
    assert pop.reached() == "w1"
    assert clients.reached(where(run.proxy, "db")) == "d1"


def test_a_listener_that_cannot_be_changed_serves_its_app_in_later_tables(
    pop: Pop, tmp_path: Path
) -> None:
    run = start_without_certificates(pop, tmp_path)
    run.change(f"{FIRST}=tls:db")
    run.proxy.wait_for("listener_failed")
    run.proxy.edit("UPDATE backends SET weight = 7")
    assert pop.reached() == "w1"


def test_the_mode_of_an_address_changes_under_a_storm(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web", EDGEPROXY_BINDING_TTL_SECS="0")
    with Storm(run.proxy.address) as storm:
        for number in range(20):
            before = storm.served
            run.change(f"{FIRST}={('db', 'web')[number % 2]}", f"{SECOND}=*")
            wait_until(lambda b=before: storm.served > b + 5, "clients to be served")  # type: ignore[misc]
    assert storm.faults == []
    # Who is about to be accepted in the old manner still is.
    wait_until(lambda: pop.reached() == "w1", "the last mode to hold")


def test_apps_that_are_new_are_served_from_the_first_client_on(pop: Pop) -> None:
    """The table with the backends of an app is published before its listener opens."""
    port = free_port()
    for number in range(10):
        pop.backend(f"n{number}", app=f"new{number}")
    run = start(pop, f"{FIRST}=web")
    for number in range(10):
        run.path.write_text(
            section("listeners", listen=[f"{FIRST}=web", f"127.0.0.1:{port}=new{number}"])
        )
        run.proxy.send(signal.SIGHUP)
        seen: set[str] = set()
        while f"n{number}" not in seen:
            try:
                name = clients.reached(("127.0.0.1", port))
            except (ConnectionRefusedError, ConnectionResetError):
                assert number == 0, "the address was closed"
            else:
                assert name in (f"n{number}", f"n{number - 1}"), name
                seen.add(name)
    assert not run.proxy.seen("client_refused")


def test_routes_to_new_apps_refuse_nobody(pop: Pop) -> None:
    for number in range(10):
        pop.backend(f"n{number}", app=f"new{number}")
    run = start(pop, f"{FIRST}=sni")
    execute(pop.database, "CREATE TABLE edgeproxy_routes (pattern TEXT PRIMARY KEY, app TEXT)")
    execute(pop.database, "INSERT INTO edgeproxy_routes VALUES ('*', 'web')")
    hello = hellos.from_openssl("a.example")
    published = 0
    for number in range(10):
        execute(pop.database, f"UPDATE edgeproxy_routes SET app = 'new{number}'")
        name = ""
        while name != f"n{number}":
            client = clients.connect(run.proxy.address)
            client.send(hello)
            name = clients.greeting(client)
            client.close()
            if published == 0 and name == "":
                continue  # before the first route is known
            published += 1
            assert name in ("w1", f"n{number}", f"n{number - 1}"), name
    reasons = {each["reason"] for each in run.proxy.seen("client_refused")}
    assert reasons <= {"name_unknown"}


def test_who_is_on_the_way_is_met_as_it_came(pop: Pop) -> None:
    """A client in the middle of its PROXY header is not affected by a change of its listener."""
    run = start(pop, f"{FIRST}=web")
    run.change(f"{FIRST}=web", proxy_protocol_in=["127.0.0.0/8"])
    where(run.proxy, "web")
    slow, later = pop.client(), pop.client()
    slow.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1")
    later.send(b"PROXY UNKNOWN\r\n")
    assert clients.greeting(later) == "w1"  # the one before it has been accepted, too
    run.change(f"{FIRST}=db")
    where(run.proxy, "db")
    assert pop.reached() == "d1"
    slow.send(b" 2\r\npayload")
    assert clients.greeting(slow) == "w1"
    slow.end()
    assert slow.rest() == (b"payload", False)


def test_a_listener_goes_while_clients_are_heard(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web", f"{SECOND}=sni", EDGEPROXY_ROUTES="*=db")
    hello = hellos.from_openssl("a.example")
    waiting: list[Peer] = []
    for number in range(20):
        client = pop.keep(clients.connect(where(run.proxy, "sni")))
        client.send(hello[: 1 + 5 * number])
        waiting.append(client)
    run.change(f"{FIRST}=web")
    run.proxy.wait_for("listener_closed", listen=SECOND)
    for number, client in enumerate(waiting):
        client.send(hello[1 + 5 * number :])
        assert clients.greeting(client) == "d1"
        client.end()
        assert client.rest() == (hello, False)


def test_signals_as_fast_as_they_can_be_sent(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web", EDGEPROXY_BINDING_TTL_SECS="0")
    texts = [
        section("listeners", listen=[f"{FIRST}=web", *more])
        for more in ([], [f"{SECOND}=db"], [f"{SECOND}=sni"], [f"{SECOND}=*", f"{THIRD}=tls:*"])
    ]
    with Storm(run.proxy.address) as storm:
        for number in range(200):
            run.path.write_text(texts[number % len(texts)])
            run.proxy.send(signal.SIGHUP)
        before = storm.served
        wait_until(lambda: storm.served > before + 20, "clients to be served")
    assert storm.faults == []
    run.change(f"{FIRST}=web", f"{THIRD}=db")

    def is_there() -> bool:  # reloads of before may still have been going on
        host, port = where(run.proxy, "db")
        return host == "127.0.0.3" and clients.reached((host, port)) == "d1"

    wait_until(is_there, "what was said last")


def test_a_stop_in_the_middle_of_a_reload_leaves_no_path(pop: Pop) -> None:
    path = pop.folder / "door"
    run = start(pop, f"{FIRST}=web")
    run.path.write_text(section("listeners", listen=[f"{FIRST}=web", f"unix:{path}=db"]))
    run.proxy.send(signal.SIGHUP)
    run.proxy.send(signal.SIGTERM)
    run.proxy.last_words()
    assert not path.exists()


def test_a_successor_takes_what_a_reload_has_opened(pop: Pop) -> None:
    run = start(pop, f"{FIRST}=web")
    run.change(f"{FIRST}=web", f"{SECOND}=db")
    second = where(run.proxy, "db")
    with upgraded(run.proxy):
        assert (pop.reached(), clients.reached(second)) == ("w1", "d1")
