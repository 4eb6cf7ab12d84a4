"""Clients that speak TLS with a proxy: of Python, and of openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess

import pytest

from tests.authority import authority_pem, issued
from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.pop import Pop
from tests.system.proxy import RunningProxy

LISTEN = {"EDGEPROXY_LISTENERS": "127.0.0.1:0=tls:*"}
NAME = "www.example.com"


def serve(pop: Pop, **variables: str) -> RunningProxy:
    """Start a proxy with a certificate for NAME."""
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    pair = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    return pop.serve(**{**LISTEN, **pair, **variables})


def s_client(pop: Pop, *options: str, said: str = "") -> str:
    """Return all that `openssl s_client` shows of its connection to the proxy."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    address = "{}:{}".format(*pop.proxy.address)
    done = subprocess.run(
        [openssl, "s_client", "-connect", address, "-CAfile", str(pop.folder / "ca.pem"), *options],
        input=said,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


def context(pop: Pop) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pop.folder / "ca.pem"))


def tls_client(pop: Pop, name: str = NAME, source: str = "", **more: ssl.SSLContext) -> Peer:
    """Return a client that has shaken hands."""
    tcp = clients.connect(pop.proxy.address, source).sock
    given = more.get("by") or context(pop)
    return pop.keep(Peer(given.wrap_socket(tcp, server_hostname=name)))


def serial(client: Peer) -> str:
    assert isinstance(client.sock, ssl.SSLSocket)
    shown = client.sock.getpeercert()
    assert shown
    return str(shown["serialNumber"])
