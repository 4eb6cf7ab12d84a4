"""TLS that ends at the proxy, as openssl and curl see it."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable

import pytest

from tests.authority import authority_pem, issued
from tests.conformance.peers import Peer
from tests.system import clients
from tests.system.pop import Pop
from tests.system.proxy import run_edgeproxy
from tests.system.test_metrics import METRICS, page_of, read, sample
from tests.system.tls import LISTEN, NAME, context, s_client, serial, serve, tls_client
from tests.waiting import wait_until

pytestmark = pytest.mark.system


# -- versions, ciphers, names ---------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_the_versions_of_today_are_spoken(pop: Pop, version: str) -> None:
    pop.backend("sa-1")
    serve(pop)
    shown = s_client(pop, version, "-servername", NAME, "-verify_hostname", NAME)
    assert "Verification: OK" in shown
    assert f"Protocol  : TLSv{version[4:].replace('_', '.')}" in shown or "TLSv1.3, Cipher" in shown
    assert re.search("Server Temp Key: X25519", shown)
    assert "Compression: NONE" in shown


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_the_versions_of_yesterday_are_refused(pop: Pop, version: str) -> None:
    pop.backend("sa-1")
    proxy = serve(pop, **METRICS)
    shown = s_client(pop, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in shown
    assert proxy.wait_for("client_refused")["reason"] == "handshake_failed"
    assert sample(read(page_of(pop)), 'edgeproxy_refused_total{reason="handshake_failed"}') == 1


@pytest.mark.parametrize(
    "cipher",
    [
        "AES128-GCM-SHA256",  # no forward secrecy
        "AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA",  # CBC
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-CCM",
        "AECDH-AES128-SHA",
        "NULL-SHA256",
        "PSK-AES128-GCM-SHA256",
        "ECDHE-ECDSA-ARIA128-GCM-SHA256",
    ],
)
def test_weak_ciphers_are_refused(pop: Pop, cipher: str) -> None:
    serve(pop)
    shown = s_client(pop, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "Cipher is (NONE)" in shown


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
def test_good_ciphers_are_spoken(pop: Pop, cipher: str) -> None:
    pop.backend("sa-1")
    serve(pop)
    assert f"Cipher is ECDHE-ECDSA-{cipher}" in s_client(
        pop, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{cipher}"
    )


ENGINES = pytest.mark.parametrize("engine", ["auto", "portable"])


@ENGINES
@pytest.mark.parametrize("groups", ["ffdhe2048", "ffdhe8192", "ffdhe8192:P-521", "P-521", "X448"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_groups_that_cost_much_or_are_not_ours_are_refused(
    pop: Pop, engine: str, groups: str, version: str
) -> None:
    proxy = serve(pop, EDGEPROXY_ENGINE=engine)
    shown = s_client(pop, version, "-groups", groups)
    assert "Cipher is (NONE)" in shown
    assert "alert handshake failure" in shown
    assert proxy.wait_for("client_refused")["reason"] == "handshake_failed"


@ENGINES
@pytest.mark.parametrize(
    ("groups", "agreed"),
    [
        ("X25519", "X25519"),
        ("P-256", "P-256"),
        ("P-384", "P-384"),
        ("X448:P-384", "X448|P-384"),
        ("P-384:ffdhe8192", "P-384"),
    ],
)
def test_our_groups_are_spoken(pop: Pop, engine: str, groups: str, agreed: str) -> None:
    pop.backend("sa-1")
    serve(pop, EDGEPROXY_ENGINE=engine)
    shown = s_client(pop, "-tls1_3", "-groups", groups)
    assert re.search(f"Server Temp Key: (ECDH, )?({agreed}|prime256v1|secp384r1)", shown)


def test_nobody_can_renegotiate(pop: Pop) -> None:
    pop.backend("sa-1")
    serve(pop)
    shown = s_client(pop, "-tls1_2", said="R\n")
    assert "RENEGOTIATING" not in shown or "no renegotiation" in shown or "error" in shown


def test_a_certificate_is_chosen_by_the_name(pop: Pop) -> None:
    pop.backend("sa-1")
    folder = pop.folder / "certs"
    for name in ("default", "shop", "blog"):
        issued(f"{name}.example.com").put(folder, name)
    issued("*.wild.example").put(folder, "wild")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    pop.serve(**LISTEN, EDGEPROXY_TLS_CERT_DIR=str(folder))
    for name in ("default.example.com", "SHOP.example.com", "blog.example.com", "x.wild.example"):
        shown = s_client(pop, "-servername", name, "-verify_hostname", name)
        assert "Verification: OK" in shown, name
    for options in (["-noservername"], ["-servername", "nobody.example"]):
        shown = s_client(pop, *options, "-verify_hostname", "default.example.com")
        assert "Verification: OK" in shown
    assert "Verification error" in s_client(
        pop, "-servername", "a.b.wild.example", "-verify_hostname", "a.b.wild.example"
    )


def test_protocols_are_agreed_on(pop: Pop) -> None:
    pop.backend("sa-1")
    serve(pop, EDGEPROXY_TLS_ALPN="h2,http/1.1")
    assert "ALPN protocol: h2" in s_client(pop, "-alpn", "http/1.1,h2")
    assert "ALPN protocol: http/1.1" in s_client(pop, "-alpn", "http/1.1")
    assert "No ALPN negotiated" in s_client(pop)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed(pop: Pop, version: str) -> None:
    pop.backend("sa-1")
    serve(pop)
    kept = str(pop.folder / "session")
    assert "New, TLS" in s_client(pop, version, "-sess_out", kept)
    if version == "-tls1_3":  # its tickets come after the handshake
        by = context(pop)
        first = tls_client(pop, by=by)
        assert clients.greeting(first) == "sa-1"
        assert isinstance(first.sock, ssl.SSLSocket)
        session = first.sock.session
        tcp = clients.connect(pop.proxy.address).sock
        again = pop.keep(Peer(by.wrap_socket(tcp, server_hostname=NAME, session=session)))
        assert isinstance(again.sock, ssl.SSLSocket)
        assert again.sock.session_reused
        assert clients.greeting(again) == "sa-1"
    else:
        assert "Reused, TLS" in s_client(pop, version, "-sess_in", kept)


def test_curl_is_served_by_a_backend_that_knows_no_tls(pop: Pop) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    backend = pop.manual_backend("sa-1")
    serve(pop)
    port = pop.proxy.address[1]
    with subprocess.Popen(
        [
            *(curl, "-sS", "--max-time", "20", "--resolve", f"{NAME}:{port}:127.0.0.1"),
            *("--cacert", str(pop.folder / "ca.pem"), f"https://{NAME}:{port}/page"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as asking:
        server = backend.accept()
        assert server.receive(15) == b"GET /page HTTP/"
        server.send(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        out, err = asking.communicate(timeout=20)
        server.close()
    assert (asking.returncode, out, err) == (0, b"x" * 100_000, b"")


def test_certificates_of_clients_are_wanted(pop: Pop) -> None:
    backend = pop.backend("sa-1")
    authorities = pop.folder / "authorities.pem"
    authorities.write_bytes(authority_pem())
    proxy = serve(pop, EDGEPROXY_TLS_CLIENT_CA=str(authorities))
    known = context(pop)
    known.load_cert_chain(*issued("client").put(pop.folder, "client"))
    assert clients.greeting(tls_client(pop, by=known)) == "sa-1"
    assert "certificate required" in s_client(pop, "-ign_eof")
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=stranger", "-keyout", "other.key", "-out", "other.crt"),
        ],
        cwd=pop.folder,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    pair = ("-cert", str(pop.folder / "other.crt"), "-key", str(pop.folder / "other.key"))
    assert "alert" in s_client(pop, *pair, "-ign_eof")
    assert proxy.wait_for("client_refused")["reason"] == "handshake_failed"
    assert backend.total == 1


# -- renewal --------------------------------------------------------------------------------


def test_a_renewed_certificate_is_for_new_clients(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = serve(pop)
    old = tls_client(pop)
    assert clients.greeting(old) == "sa-1"
    issued(NAME).put(pop.folder / "pair", "edge")
    wait_until(lambda: serial(tls_client(pop)) != serial(old), "the new certificate")
    old.send(b"goes on")
    assert old.receive(7) == b"goes on"
    assert len(proxy.seen("certificates")) == 2


def test_a_bad_pair_changes_nothing(pop: Pop) -> None:
    pop.backend("sa-1")
    folder = pop.folder / "certs"
    issued(NAME).put(folder, "a")
    (pop.folder / "ca.pem").write_bytes(authority_pem())
    proxy = pop.serve(**LISTEN, EDGEPROXY_TLS_CERT_DIR=str(folder))
    before = serial(tls_client(pop))
    key = (folder / "a.key").read_bytes()
    faults: list[Callable[[], object]] = [
        lambda: (folder / "a.key").write_bytes(issued(NAME).key),
        lambda: (folder / "a.crt").write_text("nonsense"),
        (folder / "a.crt").unlink,
        (folder / "a.key").unlink,
    ]
    for number, fault in enumerate(faults, start=1):
        fault()
        proxy.wait_for("certificates_bad", number)
        assert serial(tls_client(pop)) == before
    assert key not in proxy.told().encode()
    issued(NAME).put(folder, "a")
    wait_until(lambda: serial(tls_client(pop)) != before, "the new certificate")


def test_without_a_certificate_one_is_made(pop: Pop) -> None:
    pop.backend("sa-1")
    proxy = pop.serve(**LISTEN)
    assert "127.0.0.1" in proxy.wait_for("certificate_self_signed")["names"]
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    assert clients.greeting(tls_client(pop, by=unverified)) == "sa-1"


@pytest.mark.parametrize("fault", ["half", "missing", "other key", "expired", "nonsense", "empty"])
def test_a_start_that_cannot_be_says_why(pop: Pop, fault: str) -> None:
    cert, key = issued(NAME).put(pop.folder / "pair", "edge")
    variables = {"EDGEPROXY_TLS_CERT": str(cert), "EDGEPROXY_TLS_KEY": str(key)}
    said = str(cert)
    if fault == "half":
        del variables["EDGEPROXY_TLS_KEY"]
        said = "EDGEPROXY_TLS_KEY"
    elif fault == "missing":
        cert.unlink()
    elif fault == "other key":
        key.write_bytes(issued(NAME).key)
        said = str(key)
    elif fault == "expired":
        cert.write_bytes(issued(NAME, begins_in=-7200, expires_in=-3600).cert)
    elif fault == "nonsense":
        cert.write_text("nonsense")
    elif fault == "empty":
        (pop.folder / "none").mkdir()
        variables = {"EDGEPROXY_TLS_CERT_DIR": str(pop.folder / "none")}
        said = "holds no certificates"
    done = run_edgeproxy("serve", folder=pop.folder, **LISTEN, **variables)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
