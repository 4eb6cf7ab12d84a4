"""The self-signed certificate is one that clients accept once they trust it."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgeproxy.tls.self_signed import self_signed


def test_it_is_made_as_documented() -> None:
    now = time.time()
    certificate, expires_at = self_signed(now)
    read = x509.load_pem_x509_certificate(certificate.chain_pem)
    public = read.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert expires_at == read.not_valid_after_utc.timestamp()
    assert (read.not_valid_after_utc - read.not_valid_before_utc).days == 397
    assert read.not_valid_before_utc.timestamp() <= now
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edgeproxy.internal", "localhost"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["127.0.0.1", "::1"]
    assert certificate.names == ("edgeproxy.internal", "localhost")


def test_no_two_are_the_same() -> None:
    first, second = (self_signed(time.time())[0] for _ in range(2))
    assert first.key_pem != second.key_pem
    assert first.chain_pem != second.chain_pem


@pytest.mark.parametrize("name", ["edgeproxy.internal", "localhost", "127.0.0.1", "::1"])
def test_a_strict_client_that_trusts_it_accepts_it(tmp_path: Path, name: str) -> None:
    certificate, _ = self_signed(time.time())
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.chain_pem + certificate.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    client = ssl.create_default_context(cadata=certificate.chain_pem.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as wrapped:
            wrapped.sendall(b"met")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            assert wrapped.recv(3) == b"met"
    finally:
        thread.join()


def test_importing_the_module_does_not_import_cryptography() -> None:
    source = (
        "import sys, edgeproxy.config.load, edgeproxy.tls.certificates; "
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
