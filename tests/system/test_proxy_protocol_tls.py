"""What backends are told of the TLS of clients: the same as HAProxy tells, byte by byte."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from edgeproxy.wire import proxy_v2
from edgeproxy.wire.proxy_header import Endpoint, Header
from tests.authority import authority_pem, issued
from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.backends import ServingBackend
from tests.system.pop import Pop
from tests.system.programs import haproxy, nginx
from tests.system.tls import NAME, context, serve, tls_client

pytestmark = pytest.mark.system

ALPN = ("h2", "http/1.1")
ADDRESSES = 16 + 12
UNIQUE_ID = 0x05
VERSIONS = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])


def tell(client: socket.socket) -> None:
    """Answer with the header that comes first."""
    header = client.recv(16, socket.MSG_WAITALL)
    header += client.recv(int.from_bytes(header[14:]), socket.MSG_WAITALL)
    client.sendall(len(header).to_bytes(2) + header)
    client.recv(1)


def told(client: Peer) -> bytes:
    return client.receive(int.from_bytes(client.receive(2)))


def tlvs(header: bytes) -> list[tuple[int, bytes]]:
    found, at = [], ADDRESSES
    while at < len(header):
        end = at + 3 + int.from_bytes(header[at + 1 : at + 3])
        found.append((header[at], header[at + 3 : end]))
        at = end
    return [each for each in found if each[0] != UNIQUE_ID]


def speaking(pop: Pop, version: str, common_name: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
    by = context(pop)
    by.maximum_version = ssl.TLSVersion[version]
    if alpn:
        by.set_alpn_protocols(list(alpn))
    if common_name:
        by.load_cert_chain(*issued(common_name=common_name).put(pop.folder / "client", "client"))
    return by


def in_front(pop: Pop, backend: ServingBackend, client_ca: Path | None) -> tuple[str, int]:
    """Run HAProxy before a backend, as the proxy is; return its address."""
    cert, key = issued(NAME).put(pop.folder / "front", "front")
    both = pop.folder / "front.both"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    wanted = "" if client_ca is None else f"ca-file {client_ca} verify required"
    options = "send-proxy-v2-ssl-cn proxy-v2-options authority"
    return pop.keep(
        haproxy(
            pop.folder,
            f"listen a\n  mode tcp\n  bind LISTEN ssl crt {both} alpn {','.join(ALPN)} {wanted}\n"
            f"  server s {backend.host}:{backend.port} {options}\n",
        )
    ).address


@VERSIONS
@pytest.mark.parametrize("common_name", ["", "client 7", "Jürgen"])
@pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["", "alpn"])
def test_the_tlvs_are_those_of_haproxy(
    pop: Pop, version: str, common_name: str, alpn: tuple[str, ...]
) -> None:
    backend = pop.keep(ServingBackend("sa-1", tell))
    pop.register(backend)
    ca = pop.folder / "clients-ca.pem"
    ca.write_bytes(authority_pem())
    wanted = {"EDGEPROXY_TLS_CLIENT_CA": str(ca)} if common_name else {}
    serve(pop, EDGEPROXY_PROXY_PROTOCOL_OUT="v2", EDGEPROXY_TLS_ALPN=",".join(ALPN), **wanted)
    by = speaking(pop, version, common_name, alpn)
    ours = told(tls_client(pop, by=by))
    address = in_front(pop, backend, ca if common_name else None)
    theirs = told(
        pop.keep(Peer(by.wrap_socket(clients.connect(address).sock, server_hostname=NAME)))
    )
    assert tlvs(ours) == tlvs(theirs)
    header = proxy_v2.decode(ours)
    assert header is not None
    assert (header.server_name, header.alpn) == (NAME, alpn[0].encode() if alpn else None)
    said = version.replace("_", ".")
    assert header.tls == proxy_v2.tls_of(said, bool(common_name), common_name)


def test_nginx_behind_reads_the_header(pop: Pop) -> None:
    said = "$proxy_protocol_addr $proxy_protocol_port"
    behind = pop.keep(
        nginx(pop.folder, f'server {{ listen LISTEN proxy_protocol; return "{said}"; }}')
    )
    pop.register(behind)
    ca = pop.folder / "clients-ca.pem"
    ca.write_bytes(authority_pem())
    serve(pop, EDGEPROXY_PROXY_PROTOCOL_OUT="v2", EDGEPROXY_TLS_CLIENT_CA=str(ca))
    client = tls_client(pop, by=speaking(pop, "TLSv1_3", "client", ()))
    port = client.sock.getsockname()[1]
    assert client.rest().data.decode() == f"127.0.0.1 {port}"


def test_what_a_balancer_in_front_says_is_passed_on(pop: Pop) -> None:
    pop.register(pop.keep(ServingBackend("sa-1", tell)))
    pop.serve(EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/16", EDGEPROXY_PROXY_PROTOCOL_OUT="v2")
    client, front = Endpoint("192.0.2.1", 7), Endpoint("198.51.100.1", 443)
    tls = proxy_v2.tls_of("TLSv1.3", has_certificate=True, common_name="client")
    balanced = pop.client("127.0.0.1")
    balanced.send(proxy_v2.encode(client, front, server_name=NAME, alpn=b"h2", tls=tls))
    header = proxy_v2.decode(told(balanced))
    assert isinstance(header, Header)
    assert (header.source, header.destination) == (client, front)
    assert (header.server_name, header.alpn, header.tls) == (NAME, b"h2", tls)


def test_a_client_without_tls_has_none(pop: Pop) -> None:
    pop.register(pop.keep(ServingBackend("sa-1", tell)))
    pop.serve(EDGEPROXY_PROXY_PROTOCOL_OUT="v2")
    assert tlvs(told(pop.client())) == []


@pytest.mark.parametrize("said", [b"\xff" * 200, b"a.b:443", b"a\0b"])
def test_an_authority_that_is_no_name_keeps_nobody_out(pop: Pop, said: bytes) -> None:
    pop.register(pop.keep(ServingBackend("sa-1", tell)))
    pop.serve(EDGEPROXY_PROXY_PROTOCOL_IN="127.0.0.0/16", EDGEPROXY_PROXY_PROTOCOL_OUT="v2")
    balanced = pop.client("127.0.0.1")
    block = b"\xc0\0\2\1\xc6\x33\x64\1\0\7\1\xbb\2" + len(said).to_bytes(2) + said
    balanced.send(proxy_v2.SIGNATURE + b"\x21\x11" + len(block).to_bytes(2) + block)
    header = proxy_v2.decode(told(balanced))
    assert header is not None
    assert (header.source, header.server_name) == (Endpoint("192.0.2.1", 7), None)


@VERSIONS
@pytest.mark.parametrize("alpn", [(), ("h2",), ("ftp", "http/1.1")], ids=["", "h2", "http"])
def test_haproxy_behind_agrees_on_what_the_client_agreed_on(
    pop: Pop, version: str, alpn: tuple[str, ...]
) -> None:
    """It tells its own backend what it has agreed on with the proxy."""
    name = "backend.internal"
    cert, key = issued(name).put(pop.folder / "behind", "behind")
    both = pop.folder / "behind.both"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    backend = pop.keep(ServingBackend("sa-1", tell))
    text = f"bind LISTEN ssl crt {both} alpn {','.join(reversed(ALPN))}"
    pop.register(
        pop.keep(
            haproxy(
                pop.folder,
                f"listen a\n  mode tcp\n  {text}\n"
                f"  server s {backend.host}:{backend.port} send-proxy-v2-ssl-cn\n",
            )
        )
    )
    serve(
        pop,
        EDGEPROXY_TLS_ALPN=",".join(ALPN),
        EDGEPROXY_BACKEND_TLS=name,
        EDGEPROXY_BACKEND_TLS_CA=str(pop.folder / "ca.pem"),
    )
    client = tls_client(pop, by=speaking(pop, version, "", alpn))
    header = proxy_v2.decode(told(client))
    assert header is not None
    assert header.alpn == (alpn[-1].encode() if alpn else None)
