"""TLS that goes through untouched, to the app of the server name that a client asks for."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.authority import issued
from tests.conformance.peers import Peer
from tests.store.editing import execute
from tests.system import clients
from tests.system.backends import ServingBackend
from tests.system.listeners import where
from tests.system.pop import BRAZIL, Pop
from tests.system.test_metrics import METRICS, page_of, read
from tests.waiting import wait_until
from tests.wire import hellos

pytestmark = pytest.mark.system

ROUTES = "www.example.com=web,*.example.com=wild,*=other"
SNI = {"EDGEPROXY_LISTENERS": "127.0.0.1:0=sni", "EDGEPROXY_ROUTES": ROUTES}
TABLE = "CREATE TABLE edgeproxy_routes (pattern TEXT PRIMARY KEY, app TEXT NOT NULL);"


def apps(pop: Pop, *names: str) -> None:
    for name in names:
        pop.backend(name, app=name, hard_limit=0)


def asked(pop: Pop, hello: bytes, *cuts: int) -> str:
    """Return which backend a client reaches; its hello comes back as it was sent."""
    client = pop.client()
    try:
        for start, end in zip((0, *cuts), (*cuts, len(hello)), strict=True):
            client.send(hello[start:end])
        name = clients.greeting(client)
        if name:
            assert client.receive(len(hello)) == hello
        return name
    except ConnectionResetError:
        return ""
    finally:
        client.close()


def named(name: str) -> bytes:
    return hellos.from_openssl(name)


def test_a_name_leads_to_its_app(pop: Pop) -> None:
    apps(pop, "web", "wild", "other")
    pop.serve(**SNI)
    assert asked(pop, named("www.example.com")) == "web"
    assert asked(pop, named("WWW.Example.COM")) == "web"
    assert asked(pop, named("a.example.com")) == "wild"
    assert asked(pop, named("a.b.example.com")) == "other"
    assert asked(pop, named("example.com")) == "other"
    assert asked(pop, hellos.from_openssl(None)) == "other"
    assert asked(pop, hellos.from_openssl("192.0.2.1")) == "other"
    literal = hellos.server_name(b"192.0.2.1")
    assert asked(pop, hellos.records(hellos.message(literal))) in ("other", "")


def test_who_has_no_app_is_refused_if_there_is_no_default(pop: Pop) -> None:
    apps(pop, "web")
    proxy = pop.serve(**{**SNI, "EDGEPROXY_ROUTES": "www.example.com=web"}, **METRICS)
    assert asked(pop, named("other.example")) == ""
    assert asked(pop, hellos.from_openssl(None)) == ""
    told = proxy.wait_for("client_refused")
    assert told["reason"] == "name_unknown"
    assert "edgeproxy_routes" in told["hint"]
    assert asked(pop, named("www.example.com")) == "web"
    assert 'edgeproxy_refused_total{reason="name_unknown"} 2.0' in read(page_of(pop))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_hello_may_come_in_any_segments(pop: Pop, version: ssl.TLSVersion) -> None:
    apps(pop, "web", "other")
    pop.serve(**SNI)
    hello = hellos.from_openssl("www.example.com", newest=version)
    for cuts in ([], [1], [5], [len(hello) - 1], list(range(1, len(hello)))):
        assert asked(pop, hello, *cuts) == "web", cuts


def test_a_hello_may_be_large_and_in_many_records(pop: Pop) -> None:
    apps(pop, "web", "other")
    pop.serve(**SNI)
    keys = hellos.extension(51, bytes(15_800))  # as shares of post-quantum keys
    message = hellos.message(keys, hellos.server_name(b"www.example.com"))
    assert len(message) > 15_900
    assert asked(pop, hellos.records(message)) == "web"
    assert asked(pop, hellos.records(message), *range(100, 15_900, 100)) == "web"
    assert asked(pop, hellos.records(message, [1, 3, 500, 1000])) == "web"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", "hello_malformed"),
        (b"\x80\x2e\x01\x00\x02", "hello_malformed"),
        (b"\x16\x03\x01\x48\x00", "hello_malformed"),
        (b"\x16\x03\x01\x02\x00\x02", "hello_malformed"),
        (bytes(40_000), "hello_malformed"),
        (hellos.records(hellos.message(hellos.server_name(b"a.b", b"c.d"))), "hello_malformed"),
        (hellos.records(hellos.message(hellos.server_name(b'a"}\n\x1b[31mforged'))), ""),
    ],
)
def test_what_is_no_hello_is_refused(pop: Pop, said: bytes, reason: str) -> None:
    apps(pop, "web")
    proxy = pop.serve(**{**SNI, "EDGEPROXY_ROUTES": "www.example.com=web"}, **METRICS)
    assert asked(pop, said) == ""
    told = proxy.wait_for("client_refused")
    assert told["reason"] == (reason or told["reason"])
    assert "forged" not in proxy.told() + read(page_of(pop))
    assert asked(pop, named("www.example.com")) == "web"


def test_routes_in_the_database_are_followed_and_the_configuration_comes_first(pop: Pop) -> None:
    apps(pop, "web", "wild", "other")
    execute(
        pop.database, TABLE + "INSERT INTO edgeproxy_routes VALUES ('www.example.com', 'other')"
    )
    pop.serve(EDGEPROXY_LISTENERS="127.0.0.1:0=sni", EDGEPROXY_ROUTES="fixed.example=web")
    assert asked(pop, named("www.example.com")) == "other"
    assert asked(pop, named("x.example.com")) == ""
    for sql, name, app in [
        ("INSERT INTO edgeproxy_routes VALUES ('*.example.com', 'wild')", "x.example.com", "wild"),
        ("UPDATE edgeproxy_routes SET app = 'web'", "www.example.com", "web"),
        ("DELETE FROM edgeproxy_routes WHERE pattern = '*.example.com'", "x.example.com", ""),
        ("INSERT INTO edgeproxy_routes VALUES ('*', 'other')", "y.example", "other"),
    ]:
        execute(pop.database, sql)
        wait_until(lambda n=name, a=app: asked(pop, named(n)) == a, sql)  # type: ignore[misc]
    execute(pop.database, "INSERT INTO edgeproxy_routes VALUES ('fixed.example', 'other')")
    execute(pop.database, "INSERT INTO edgeproxy_routes VALUES ('bad pattern', 'other')")
    execute(pop.database, "INSERT INTO edgeproxy_routes VALUES ('last.example', 'wild')")
    wait_until(lambda: asked(pop, named("last.example")) == "wild", "the last route")
    assert asked(pop, named("fixed.example")) == "web"
    assert "bad pattern" in str(pop.proxy.seen("row_skipped"))
    execute(pop.database, "DROP TABLE edgeproxy_routes")
    wait_until(lambda: asked(pop, named("last.example")) == "", "the table to be gone")
    assert asked(pop, named("fixed.example")) == "web"


def test_bindings_are_those_of_the_app_behind_the_name(pop: Pop) -> None:
    for app in ("web", "other"):
        for number in (1, 2):
            pop.backend(f"{app}-{number}", app=app)
    pop.serve(**SNI)
    found = set()
    for _ in range(4):
        for name in ("www.example.com", "other.example"):
            client = pop.client(BRAZIL)
            client.send(named(name))
            found.add((name, clients.greeting(client)))
            client.close()
    assert len(found) == 2


# -- slow ones ------------------------------------------------------------------------------


def slow_hellos(pop: Pop, setup_timeout_secs: float) -> list[socket.socket]:
    """Return the sockets of two thousand clients that have said nothing yet."""
    apps(pop, "web", "other")
    proxy = pop.serve(**SNI, EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS=str(setup_timeout_secs))
    slow = [pop.keep(clients.connect(proxy.address)).sock for _ in range(2000)]
    for each in slow:
        each.setblocking(False)
    return slow


def test_two_thousand_slow_hellos_hold_up_no_others(pop: Pop) -> None:
    slow = slow_hellos(pop, 60)
    hello = named("www.example.com")
    over = threading.Event()

    def drip() -> None:
        for byte in hello[:-1]:
            for sock in slow:
                if over.is_set():
                    return
                with suppress(OSError):
                    sock.send(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        for _ in range(50):
            assert asked(pop, hello) == "web"
    finally:
        over.set()
        dripping.join()
    assert not pop.proxy.seen("client_refused")


def test_two_thousand_slow_hellos_are_all_cut(pop: Pop) -> None:
    slow = slow_hellos(pop, 1)
    clients.wait_until_cut(slow)
    stopped = pop.proxy.stop()
    assert (stopped["refused"], stopped["accepted"]) == ("2000", "0")


# -- real TLS behind ------------------------------------------------------------------------


def tls_backend(folder: Path, backend_id: str, name: str) -> ServingBackend:
    """Return a backend that says its id over TLS, with a certificate for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued(name).put(folder, backend_id))

    def serve(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.sendall(backend_id.encode())
            tls.recv(1000)
            tls.unwrap()

    return ServingBackend(backend_id, serve)


def test_clients_see_the_certificate_of_the_backend(pop: Pop) -> None:
    pop.register(pop.keep(tls_backend(pop.folder, "web", "www.example.com")), app="web")
    pop.register(pop.keep(tls_backend(pop.folder, "wild", "a.example.com")), app="wild")
    pop.serve(**SNI)
    for name, backend in [("www.example.com", "web"), ("a.example.com", "wild")]:
        seen = subprocess.run(
            [
                "openssl",
                "s_client",
                "-connect",
                "{}:{}".format(*pop.proxy.address),
                *("-servername", name, "-verify_hostname", name),
                *("-CAfile", str(pop.folder / f"{backend}.crt"), "-partial_chain"),
                *("-verify_return_error", "-ign_eof"),
            ],
            input=b"bye\n",
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert seen.returncode == 0, seen.stderr
        assert b"Verification: OK" in seen.stdout
        assert backend.encode() in seen.stdout


def test_a_name_after_a_proxy_header(pop: Pop) -> None:
    apps(pop, "web", "other")
    log = pop.folder / "access.log"
    proxy = pop.serve(
        **SNI,
        EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/8",
        EDGEPROXY_PROXY_PROTOCOL_OUT="web=v2",
        EDGEPROXY_ACCESS_LOG=str(log),
    )
    header = f"PROXY TCP4 {BRAZIL} 192.0.2.9 7 443\r\n".encode()
    hello = named("www.example.com")
    for cuts in ([], [len(header)], [5, len(header) + 5], list(range(1, len(header + hello)))):
        client = pop.client()
        for start, end in zip((0, *cuts), (*cuts, len(header + hello)), strict=True):
            client.send((header + hello)[start:end])
        client.end()
        said = client.rest().data
        assert said.startswith(b"web\n\r\n\r\n\0\r\nQUIT\n")
        assert b"\x02\x00\x0fwww.example.com" in said
        assert said.endswith(hello)
        client.close()
    proxy.stop()
    assert log.read_text().count(BRAZIL) == 4


def test_one_pool_beside_names(pop: Pop) -> None:
    apps(pop, "web", "other")
    proxy = pop.serve(EDGEPROXY_LISTENERS="127.0.0.1:0=*,127.0.0.1:0=sni", EDGEPROXY_ROUTES=ROUTES)
    assert {pop.reached() for _ in range(4)} == {"web", "other"}
    client: Peer = pop.keep(clients.connect(where(proxy, "sni")))
    client.send(named("www.example.com"))
    assert clients.greeting(client) == "web"
