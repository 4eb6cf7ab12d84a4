"""The PROXY protocol: from balancers in front, to backends behind, and from hostile clients."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.wire import proxy_v1, proxy_v2
from edgeproxy.wire.proxy_header import Endpoint
from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.backends import ServingBackend
from tests.system.listeners import where
from tests.system.pop import BRAZIL, GERMANY, Pop
from tests.system.programs import Program, haproxy, nginx
from tests.system.proxy import RunningProxy, run_edgeproxy
from tests.system.test_metrics import METRICS, page_of, read
from tests.waiting import wait_until

pytestmark = pytest.mark.system

TRUSTED = {"EDGEPROXY_PROXY_PROTOCOL_IN": "127.0.0.0/16,::1/128"}
HERE = Endpoint("192.0.2.9", 443)
V2 = proxy_v2.SIGNATURE


def v1(client: str, port: int = 1000) -> bytes:
    return proxy_v1.encode(Endpoint(client, port), HERE)


def v2(client: str, port: int = 1000, **more: Any) -> bytes:
    return proxy_v2.encode(Endpoint(client, port), HERE, **more)


def balanced(pop: Pop, header: bytes, source: str = "127.0.0.1") -> Peer:
    """Return a client that comes through a balancer, which sends this header."""
    client = pop.client(source)
    client.send(header)
    return client


def greeted(pop: Pop, header: bytes, source: str = "127.0.0.1") -> str:
    client = balanced(pop, header, source)
    try:
        return clients.greeting(client)
    except ConnectionResetError:
        return ""
    finally:
        client.close()


def logged(pop: Pop, **variables: str) -> tuple[RunningProxy, Callable[[int], list[Any]]]:
    """Start a proxy behind balancers; return it and a function that waits for its access log."""
    path = pop.folder / "access.log"
    proxy = pop.serve(**{**TRUSTED, "EDGEPROXY_ACCESS_LOG": str(path), **variables})

    def lines(count: int) -> list[Any]:
        wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, "lines")
        return [json.loads(line) for line in path.read_text().splitlines()]

    return proxy, lines


# -- in front -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options unique-id,authority,crc32c",
        "send-proxy-v2 proxy-v2-options ssl,cert-cn,unique-id",
    ],
)
def test_haproxy_in_front_says_who_the_client_is(pop: Pop, options: str) -> None:
    pop.backend("sa-1")
    pop.backend("us-1", "us")
    proxy, lines = logged(pop)
    front = pop.keep(
        haproxy(
            pop.folder,
            "listen front\n  mode tcp\n  bind LISTEN\n  unique-id-format %{+X}o%ci:%cp\n"
            f"  server edge 127.0.0.1:{proxy.address[1]} {options}",
        )
    )
    client = pop.keep(clients.connect(front.address, BRAZIL))
    client.send(b"first bytes")
    client.end()
    assert client.rest() == (b"sa-1\nfirst bytes", False)
    # Another one, from elsewhere, is that of the look whether haproxy is there.
    wait_until(lambda: BRAZIL in {each["client"] for each in lines(1)}, "the client in the log")
    (line,) = (each for each in lines(1) if each["client"] == BRAZIL)
    assert (line["country"], line["backend"], line["bytes_in"]) == ("BR", "sa-1", 11)


def test_nginx_in_front_says_who_the_client_is(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy, lines = logged(pop)
    front = pop.keep(
        nginx(
            pop.folder,
            f"server {{ listen LISTEN; proxy_pass 127.0.0.1:{proxy.address[1]};"
            " proxy_protocol on; }",
        )
    )
    assert clients.reached(front.address, BRAZIL) == "sa-1"
    wait_until(lambda: BRAZIL in {each["client"] for each in lines(1)}, "the client in the log")


def test_a_balancer_and_a_client_of_ipv6(pop: Pop) -> None:
    pop.backend("sa-1")
    _, lines = logged(pop, EDGEPROXY_LISTENERS="[::]:0=myapp")
    port = pop.proxy.address[1]
    for address in ("::1", "127.0.0.1"):
        client = pop.keep(clients.connect((address, port)))
        client.send(proxy_v2.encode(Endpoint("2001:db8::7", 5), Endpoint("2001:db8::1", 443)))
        assert clients.greeting(client) == "sa-1"
        client.end()
        client.rest()
    assert [each["client"] for each in lines(2)] == ["2001:db8::7"] * 2
    mapped = pop.keep(clients.connect(("127.0.0.1", port)))
    mapped.send(f"PROXY TCP6 ::ffff:{BRAZIL} ::1 1 2\r\n".encode())
    clients.greeting(mapped)
    mapped.close()
    assert (BRAZIL, "BR") in {(each["client"], each["country"]) for each in lines(3)}


# -- who the client is ----------------------------------------------------------------------


def test_bindings_lists_and_limits_are_those_of_the_client(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.backend("sa-2")
    control = str(pop.folder / "control")
    proxy, lines = logged(
        pop,
        EDGEPROXY_DENY=GERMANY,
        EDGEPROXY_MAX_CONNS_PER_CLIENT="1",
        EDGEPROXY_CONTROL_SOCKET=control,
    )
    assert greeted(pop, v1(GERMANY)) == ""
    assert proxy.wait_for("client_refused", reason="denied")["client"] == GERMANY
    held = balanced(pop, v2(BRAZIL, 4321))
    bound = clients.greeting(held)
    assert greeted(pop, v1(BRAZIL)) == ""
    assert proxy.wait_for("client_refused", reason="client_full")["client"] == BRAZIL
    assert greeted(pop, v1("192.0.2.77"))
    told = run_edgeproxy("sessions", "--json", folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=control)
    assert (BRAZIL, 4321) in {(each["client"], each["port"]) for each in json.loads(told.stdout)}
    held.end()
    held.rest()
    wait_until(lambda: greeted(pop, v1(BRAZIL)) == bound, "the client at its backend again")
    ends = {(each["client"], each["end"]) for each in lines(5)}
    assert {(GERMANY, "denied"), (BRAZIL, "client_full")} <= ends


def test_rates_are_those_of_the_client(pop: Pop) -> None:
    pop.backend("sa-1")
    pop.serve(
        **TRUSTED,
        EDGEPROXY_RATE_LIMIT_ENABLED="true",
        EDGEPROXY_RATE_LIMIT_MAX_REQUESTS="1",
        EDGEPROXY_RATE_LIMIT_WINDOW_SECS="60",
        EDGEPROXY_RATE_LIMIT_BURST="1",
    )
    assert [greeted(pop, v1(BRAZIL)) for _ in range(2)] == ["sa-1", ""]
    assert greeted(pop, v1("192.0.2.1")) == "sa-1"
    six = [f"PROXY TCP6 {each} ::1 1 2\r\n".encode() for each in ("2001:db8::1", "2001:db8::2")]
    assert [greeted(pop, each) for each in six] == ["sa-1", ""], "both are of one /64"


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", proxy_v2.LOCAL, V2 + b"\x21\0\0\0"])
def test_without_an_address_the_connections_own_counts(pop: Pop, header: bytes) -> None:
    pop.backend("sa-1")
    _, lines = logged(pop)
    client = balanced(pop, header + b"payload", "127.0.0.7")
    client.end()
    assert client.rest() == (b"sa-1\npayload", False)
    assert lines(1)[0]["client"] == "127.0.0.7"


@pytest.mark.parametrize(
    "header", [v1("192.0.2.5"), v2("192.0.2.5"), v2("192.0.2.5", unique_id=b"x" * 100)]
)
def test_a_header_may_come_byte_by_byte_and_fused(pop: Pop, header: bytes) -> None:
    pop.backend("sa-1")
    pop.serve(**TRUSTED)
    client = pop.client("127.0.0.1")
    for byte in header[:-1]:
        client.send(bytes([byte]))
    client.send(header[-1:] + b"payload" * 10_000)
    client.end()
    assert client.rest() == (b"sa-1\n" + b"payload" * 10_000, False)


# -- what is wrong with it ------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
        b"PROXY TCP4 1.2.3.4\x1b[31m 1.2.3.4 1 2\r\n",
        b"PROXY " + b"x" * 200,
        V2 + b"\x31\x11\0\x0c",
        V2 + b"\x21\x11\xff\xff",
        V2 + b"\x21\x11" + struct.pack("!H", 15) + b"\x7f\0\0\1" * 2 + b"\0\1\0\2" + b"\x05\0\xff",
    ],
)
def test_what_is_no_header_ends_the_connection(pop: Pop, said: bytes) -> None:
    backend = pop.backend("sa-1")
    proxy = pop.serve(**TRUSTED, **METRICS)
    assert greeted(pop, said) == ""
    assert proxy.wait_for("client_refused")["reason"] == "proxy_malformed"
    assert 'edgeproxy_refused_total{reason="proxy_malformed"} 1.0' in read(page_of(pop))
    assert greeted(pop, v1(BRAZIL)) == "sa-1"
    assert backend.total == 1


def test_who_is_not_trusted_is_not_heard(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    proxy = pop.serve(**TRUSTED)
    assert greeted(pop, v1(BRAZIL), "127.99.0.1") == ""
    told = proxy.wait_for("client_refused")
    assert (told["reason"], told["client"]) == ("proxy_untrusted", "127.99.0.1")
    assert backend.total == 0


@pytest.mark.parametrize("said", [b"", b"P", v1("192.0.2.5")[:-1], v2("192.0.2.5")[:-1]])
def test_who_is_late_is_cut(pop: Pop, said: bytes) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(**TRUSTED, EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS="0.3")
    late, ended = balanced(pop, said), balanced(pop, said)
    ended.end()
    assert late.rest().data == ended.rest().data == b""
    told = proxy.wait_for("client_refused", reason="preamble_incomplete")
    assert "EDGEPROXY_CLIENT_SETUP_TIMEOUT_SECS" in told["hint"]
    assert "TIMEOUT" not in proxy.wait_for("client_left")["hint"]
    assert proxy.stop()["refused"] == "2"


def test_a_header_is_hostile_text(pop: Pop) -> None:
    """Nothing that a header holds can be taken for a line of a log, a label or a command."""
    pop.backend("sa-1")
    evil = b'evil"}\n\x1b[31m\xff forged=1'
    control = str(pop.folder / "control")
    proxy, lines = logged(pop, **METRICS, EDGEPROXY_CONTROL_SOCKET=control)
    held = balanced(pop, v2(BRAZIL, unique_id=evil))
    clients.greeting(held)
    authority = V2 + b"\x21\x11" + struct.pack("!H", 15 + len(evil)) + b"\x7f\x0a\0\1" * 2
    authority += b"\0\1\0\2\x02" + struct.pack("!H", len(evil)) + evil
    greeted(pop, authority)
    greeted(pop, b"PROXY UNKNOWN " + b'"} 1 forged' + b"\r\n")
    greeted(pop, b"PROXY " + evil)
    text = read(page_of(pop))
    for words in (("status",), ("sessions",), ("sessions", "--json")):
        text += run_edgeproxy(*words, folder=pop.folder, EDGEPROXY_CONTROL_SOCKET=control).stdout
    held.close()
    text += proxy.told() + json.dumps(lines(3))
    assert "evil" not in text
    assert "forged" not in text


# -- behind ---------------------------------------------------------------------------------


def echoing(tmp_path: Path, listen: str = "LISTEN proxy_protocol") -> Program:
    """Run an nginx that answers with the addresses of the PROXY header it was sent."""
    said = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port"
    return nginx(tmp_path, f'server {{ listen {listen}; return "{said}"; }}')


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_behind_learns_of_clients(pop: Pop, version: str) -> None:
    behind = pop.keep(echoing(pop.folder))
    pop.register(behind)
    pop.serve(EDGEPROXY_PROXY_PROTOCOL_OUT=version)
    client = pop.client(BRAZIL)
    port = client.sock.getsockname()[1]
    assert client.rest().data.decode() == f"{BRAZIL} {port} {pop.proxy.address[1]}"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_haproxy_behind_learns_what_a_balancer_in_front_says(pop: Pop, version: str) -> None:
    behind = pop.keep(
        haproxy(
            pop.folder,
            "listen behind\n  mode http\n  bind LISTEN accept-proxy\n"
            '  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port]'
            ' %[dst] %[fc_pp_unique_id] %[fc_pp_authority]"',
        )
    )
    pop.register(behind)
    log = pop.folder / "access.log"
    pop.serve(**TRUSTED, EDGEPROXY_PROXY_PROTOCOL_OUT=version, EDGEPROXY_ACCESS_LOG=str(log))
    client = balanced(pop, v2("2001:db8::5", 77) + b"GET / HTTP/1.0\r\n\r\n")
    answer = client.rest().data.decode().rpartition("\r\n")[2].split(" ")
    assert answer[:3] == ["2001:db8::5", "77", "::ffff:192.0.2.9"]
    client.close()
    wait_until(lambda: log.exists() and log.read_text(), "the access log")
    assert answer[3] == (json.loads(log.read_text())["id"] if version == "v2" else "")


def test_each_app_gets_its_own_version_of_the_header(pop: Pop) -> None:
    for app in ("old", "new", "none"):
        pop.register(pop.keep(ServingBackend(app, send_back)), app=app)
    proxy = pop.serve(
        EDGEPROXY_LISTENERS="127.0.0.1:0=*,127.0.0.1:0=old,127.0.0.1:0=new,127.0.0.1:0=none",
        EDGEPROXY_PROXY_PROTOCOL_OUT="old=v1,new=v2",
    )
    begins = {"old": b"PROXY TCP4 127.10.0.1 ", "new": V2, "none": b"payload"}
    for app, begin in begins.items():
        client = pop.keep(clients.connect(where(proxy, app), BRAZIL))
        client.send(b"payload")
        client.end()
        said = client.rest().data
        assert said.startswith(begin), (app, said)
        assert said.endswith(b"payload")
        assert said.count(b"PROXY") == (app == "old")


@pytest.mark.parametrize("pool", ["false", "true"])
def test_each_backend_that_is_tried_gets_one_header(pop: Pop, pool: str) -> None:
    pop.dead_backend("dead")
    pop.register(pop.keep(ServingBackend("us-1", send_back)), "us")
    proxy = pop.serve(EDGEPROXY_PROXY_PROTOCOL_OUT="v1", EDGEPROXY_POOL_ENABLED=pool)
    for _ in range(10):
        client = pop.client(BRAZIL)
        client.send(b"payload")
        client.end()
        said = client.rest().data
        port = client.sock.getsockname()[1]
        assert said == b"PROXY TCP4 %s 127.0.0.1 %d %d\r\npayload" % (
            BRAZIL.encode(),
            port,
            proxy.address[1],
        )
    assert proxy.stop()["bytes_in"] == str(10 * len(b"payload"))


@pytest.mark.parametrize("pool", ["false", "true"])
def test_a_backend_that_speaks_first_gets_a_header_too(pop: Pop, pool: str) -> None:
    """A client that says nothing is announced, and what it is told first arrives."""
    pop.backend("sa-1")
    pop.serve(EDGEPROXY_PROXY_PROTOCOL_OUT="v1", EDGEPROXY_POOL_ENABLED=pool)
    for _ in range(5):
        client = pop.client(BRAZIL)
        assert clients.greeting(client) == "sa-1"
        told = b"PROXY TCP4 127.10.0.1 127.0.0.1 %d " % client.sock.getsockname()[1]
        assert client.receive(len(told)) == told  # the backend echoes
        client.close()


def send_back(client: socket.socket) -> None:
    """Send back all that comes, after the client's end."""
    client.sendall(b"".join(iter(lambda: client.recv(1 << 16), b"")))
