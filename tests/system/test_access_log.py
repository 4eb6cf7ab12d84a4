"""The access log of a running proxy: one line for each connection, whatever became of it."""

from __future__ import annotations

import json
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, GERMANY, Pop
from tests.system.proxy import DEADLINE_SECS
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def test_each_connection_has_its_line(pop: Pop, tmp_path: Path) -> None:
    began_at = time.monotonic()
    path = tmp_path / "access.log"
    pop.dead_backend("dead")
    pop.backend("us-1", "us")
    proxy = pop.serve(EDGEPROXY_ACCESS_LOG=str(path), EDGEPROXY_DENY=GERMANY)
    assert pop.reached(BRAZIL) == "us-1"
    assert pop.reached(BRAZIL) == "us-1"
    assert pop.reached(GERMANY) == ""
    proxy.stop()

    written = [json.loads(line) for line in path.read_text().splitlines()]
    (denied,) = (each for each in written if each["client"] == GERMANY)
    of_both = [each for each in written if each["client"] == BRAZIL]
    # A line is written at the end, and the second connection may end before the first.
    first, second = sorted(of_both, key=lambda each: each["attempts"], reverse=True)
    assert (first["client"], first["country"], first["region"]) == (BRAZIL, "BR", "sa")
    assert (first["backend"], first["how"], first["attempts"]) == ("us-1", "failover", 2)
    assert (first["bytes_in"], first["bytes_out"], first["end"]) == (0, 5, "finished")
    assert 0 <= first["dial_secs"] <= first["secs"] < time.monotonic() - began_at
    assert (second["how"], second["attempts"]) == ("bound", 1)
    assert (denied["backend"], denied["end"], denied["country"]) == (None, "denied", "DE")
    assert (denied["ended_by"], denied["first_byte_secs"]) == ("proxy", None)
    assert 0 <= first["first_byte_secs"] <= first["secs"]
    assert {each["pop_region"] for each in written} == {"sa"}
    assert {each["listener"] for each in written} == {"127.0.0.1:0"}
    assert first["client_port"] > 0
    assert (first["app"], first["backend_app"], first["backend_region"]) == (None, "myapp", "us")


def test_a_line_says_who_ended_the_connection(pop: Pop, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ACCESS_LOG=str(path), EDGEPROXY_SHUTDOWN_TIMEOUT_SECS="0")
    ending, _ = pop.holder()
    ending.end()
    assert ending.rest() == (b"", False)
    wait_until(lambda: path.read_text().count("\n") == 1, "the first one has ended")
    resetting, _ = pop.holder()
    resetting.reset()
    wait_until(lambda: path.read_text().count("\n") == 2, "both have ended")
    staying, _ = pop.holder()
    proxy.stop()
    assert staying.rest().data == b""
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["end"], line["ended_by"]) for line in written] == [
        ("finished", "client"),
        ("client_reset", "client"),
        ("aborted", "proxy"),
    ]


def test_a_line_says_what_was_agreed_on_in_tls(pop: Pop, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    pop.backend("sa-1")
    proxy = pop.serve(
        EDGEPROXY_ACCESS_LOG=str(path),
        EDGEPROXY_LISTENERS="127.0.0.1:0=tls:*",
        EDGEPROXY_TLS_ALPN="h2,http/1.1",
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    with (
        socket.create_connection(proxy.address, DEADLINE_SECS) as tcp,
        context.wrap_socket(tcp, server_hostname="shop.example") as client,
    ):
        assert client.recv(4) == b"sa-1"
        port = client.getsockname()[1]
        version = client.version()
    wait_until(lambda: path.read_text().count("\n") == 1, "it has ended")
    socket.create_connection(proxy.address, DEADLINE_SECS).close()
    proxy.wait_for("client_left")
    proxy.stop()
    served, left = (json.loads(line) for line in path.read_text().splitlines())
    names = ("listener", "client_port", "server_name", "alpn", "tls")
    assert [served[name] for name in names] == [
        *("127.0.0.1:0", port, "shop.example", "http/1.1", version)
    ]
    assert (left["end"], left["ended_by"], left["backend"]) == ("client_gone", "client", None)


def test_a_full_disk_costs_lines_and_nothing_else(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(EDGEPROXY_ACCESS_LOG="/dev/full")
    for _ in range(3):
        assert pop.reached() == "sa-1"
    proxy.wait_for("access_log_failed")
