"""A row or a registration that leads to the proxy itself is never used."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass

import pytest

from edgeproxy.engine.host_addresses import host_addresses
from tests.ports import free_port
from tests.system import namespaces
from tests.system.api import Api, serve
from tests.system.namespaces import Host
from tests.system.pop import BRAZIL, Pop, row
from tests.system.proxy import SERVE, run_edgeproxy

pytestmark = pytest.mark.system

WILDCARD = "0.0.0.0"


@dataclass
class Node:
    """A row that no backend stands behind."""

    id: str
    host: str
    port: int


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_rows_that_name_the_proxy_are_skipped_and_the_others_route(pop: Pop, engine: str) -> None:
    listen, tls, metrics, api = (free_port() for _ in range(4))
    here = {each for each in host_addresses() or () if not each.startswith("fe80:")}
    spelled = {"127.0.0.1", "127.0.0.9", "::ffff:127.0.0.2", "::127.0.0.1"} | here
    circular = [
        Node(f"{port}-{ip}", ip, port)
        for port in (listen, tls, metrics, api)
        for ip in spelled
        if "." in ip or port == tls
    ]
    pop.backend("good")
    for each in circular:
        pop.register(each)
    proxy = pop.serve(
        EDGEPROXY_ENGINE=engine,
        EDGEPROXY_LISTENERS=f"{WILDCARD}:{listen}=*,[::]:{tls}=tls:*",
        EDGEPROXY_METRICS_ENABLED="true",
        EDGEPROXY_METRICS_LISTEN_ADDR=f"{WILDCARD}:{metrics}",
        EDGEPROXY_API_ENABLED="true",
        EDGEPROXY_API_LISTEN_ADDR=f"{WILDCARD}:{api}",
    )
    assert proxy.seen("ready")[0]["backends"] == "1"
    skipped = {each["id"]: each["reason"] for each in proxy.seen("row_skipped")}
    assert skipped.keys() == {each.id for each in circular}
    assert f"the listener {WILDCARD}:{listen} of this proxy" in skipped[f"{listen}-127.0.0.1"]
    assert "the API of this proxy" in skipped[f"{api}-127.0.0.1"]
    proxy.address = ("127.0.0.1", listen)
    assert {pop.reached() for _ in range(20)} == {"good"}


def test_a_row_that_comes_to_name_the_proxy_is_skipped_from_then_on(pop: Pop) -> None:
    port = free_port()
    good = pop.backend("good")
    pop.register(Node("self", "127.0.0.1", port))
    config = pop.folder / "edgeproxy.toml"
    config.write_text('[listeners]\nlisten = ["127.0.0.1:0=*"]\n')
    proxy = pop.serve(EDGEPROXY_CONFIG=str(config), EDGEPROXY_CONFIG_WATCH_ENABLED="true")
    assert not proxy.seen("row_skipped")
    config.write_text(f'[listeners]\nlisten = ["127.0.0.1:0=*", "{WILDCARD}:{port}=*"]\n')
    assert "the listener" in proxy.wait_for("row_skipped", id="self")["reason"]
    assert {pop.reached() for _ in range(10)} == {"good"}
    proxy.edit("DELETE FROM backends;" + row(Node("self", "127.0.0.1", proxy.address[1])))
    proxy.wait_for("row_skipped", 2, id="self")
    assert pop.reached() == ""
    proxy.edit("DELETE FROM backends;" + row(good))
    assert pop.reached() == "good"


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "2001:0:506:708::5601:5601",
        "fd00:ec2::254",
        "0.0.0.1",
        "::ffff:0.0.0.0",
    ],
)
def test_no_stranger_registers_what_is_no_backend(pop: Pop, ip: str) -> None:
    api = serve(pop)
    body = {"id": "a", "app": "myapp", "region": "sa", "ip": ip, "port": 80}
    answer = api.ask("POST", "/api/v1/register", body)
    assert (answer.status // 100, answer.said["field"]) == (4, "ip")
    assert api.listed() == {}


def test_the_proxy_itself_cannot_be_registered(pop: Pop) -> None:
    metrics = free_port()
    api = serve(
        pop,
        EDGEPROXY_LISTEN_ADDR="0.0.0.0:0",
        EDGEPROXY_METRICS_ENABLED="true",
        EDGEPROXY_METRICS_LISTEN_ADDR=f"{WILDCARD}:{metrics}",
    )
    body = {"id": "a", "app": "myapp", "region": "sa"}
    for port, ips in (
        (pop.proxy.address[1], ("127.0.0.1", "127.7.7.7", "::7f00:1", "64:ff9b::127.0.0.1")),
        (metrics, ("127.0.0.1", "::ffff:127.9.9.9")),
        (api.address[1], ("127.0.0.1", "::ffff:127.0.0.1")),
    ):
        for ip in ips:
            answer = api.ask("POST", "/api/v1/register", body | {"ip": ip, "port": port})
            assert (answer.status, answer.said["field"]) == (403, "ip")
            assert "of this proxy" in answer.said["error"]
    assert api.listed() == {}


def test_a_skipped_row_is_told_everywhere_and_nothing_changes_it(pop: Pop) -> None:
    pop.backend("good")
    control = str(pop.folder / "control")
    api = serve(pop, EDGEPROXY_CONTROL_SOCKET=control, EDGEPROXY_DB_RELOAD_SECS="0.1")
    own, odd = Node("own", "127.0.0.1", pop.proxy.address[1]), Node("odd", "10.0.0.1", 0)
    pop.proxy.edit(row(own) + row(odd))
    table = pop.proxy.seen("table_published")[-1]
    assert (table["backends"], table["skipped"]) == ("1", "2")
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "/weight", {"weight": 7}),
        ("POST", "/disable", None),
        ("POST", "/drain", None),
    ):
        for name, reason in (("own", "of this proxy"), ("odd", "port")):
            answer = api.ask(method, f"/api/v1/backends/{name}{path}", body)
            edits = path in ("/weight", "/disable")
            assert answer.status == (409 if name == "odd" and edits else 404)
            assert reason in answer.said["error"]
    with closing(sqlite3.connect(pop.database)) as connection:
        of_both = "SELECT weight, healthy FROM backends WHERE id IN ('own', 'odd')"
        assert connection.execute(of_both).fetchall() == [(1, 1)] * 2
    told = run_edgeproxy("status", "--socket", control, folder=pop.folder)
    assert "rows skipped: 2 (odd, own)" in told.stdout


def test_an_explanation_without_a_proxy_leaves_such_a_row_out(pop: Pop) -> None:
    pop.register(Node("own", "127.0.0.1", 9000))
    words = ("explain", BRAZIL, "--json")
    for listen, chosen in (("127.0.0.1:9001", "own"), ("0.0.0.0:9000", None)):
        done = run_edgeproxy(*words, folder=pop.folder, EDGEPROXY_LISTEN_ADDR=listen)
        assert json.loads(done.stdout)["backend"] == chosen


def test_only_some_networks_may_be_registered(pop: Pop) -> None:
    api = serve(pop, EDGEPROXY_API_REGISTER_NETWORKS="10.50.0.0/16,127.0.0.8/32")
    body = {"id": "a", "app": "myapp", "region": "sa", "port": 80}
    for ip, status in (
        ("10.50.1.1", 201),
        ("127.0.0.8", 200),
        ("10.51.1.1", 403),
        ("127.0.0.1", 403),
    ):
        answer = api.ask("POST", "/api/v1/register", body | {"ip": ip})
        assert answer.status == status
        if status == 403:
            assert "EDGEPROXY_API_REGISTER_NETWORKS" in answer.said["error"]


def test_only_a_caller_on_loopback_registers_loopback(pop: Pop) -> None:
    here = sorted(
        each for each in host_addresses() or () if "." in each and not each.startswith("127.")
    )
    if not here:
        pytest.skip("this host has no address but loopback")
    api = serve(
        pop, EDGEPROXY_API_LISTEN_ADDR=f"{WILDCARD}:0", EDGEPROXY_API_ALLOW=f"{here[0]},127.0.0.1"
    )
    stranger, local = Api(pop, here[0]), Api(pop, "127.0.0.1")
    stranger.address = here[0], api.address[1]
    local.address = "127.0.0.1", api.address[1]
    body = {"id": "a", "app": "myapp", "region": "sa", "ip": "127.0.0.1", "port": 80}
    assert stranger.ask("POST", "/api/v1/register", body).status == 403
    assert stranger.ask("POST", "/api/v1/register", body | {"ip": here[0]}).status == 201
    assert local.ask("POST", "/api/v1/register", body).status == 200


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_client_cannot_call_the_api_through_the_proxy(pop: Pop, engine: str) -> None:
    """A prefix that is routed to this host: no row shows that it leads to the API."""
    namespaces.need_namespaces()
    with Host("own") as host:
        host.ip("route", "add", "local", "192.0.2.0/24", "dev", "lo")
        port = free_port()
        pop.register(Node("api", "192.0.2.7", port))
        proxy = pop.serve_with(
            host.command(SERVE),
            EDGEPROXY_ENGINE=engine,
            EDGEPROXY_API_ENABLED="true",
            EDGEPROXY_API_LISTEN_ADDR=f"{WILDCARD}:{port}",
            EDGEPROXY_API_ALLOW="127.0.0.0/8,192.0.2.0/24",
        )
        proxy.wait_for("api")

        def status(address: tuple[str, int]) -> int:
            tcp = host.run(lambda: socket.create_connection(address, 20))
            connection = http.client.HTTPConnection("api")
            connection.sock = tcp
            connection.request("GET", "/health")
            with closing(connection):
                return connection.getresponse().status

        assert status(("127.0.0.1", port)) == 200
        assert status(("192.0.2.7", port)) == 200
        assert status(proxy.address) == 403
