"""The certificates of listeners: which are taken, which are refused, how changes are followed."""

from __future__ import annotations

import os
import resource
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import NoEncryption as Unprotected
from cryptography.x509 import load_pem_x509_certificate

from edgeproxy.engine.tls import TlsError, TlsSettings
from edgeproxy.tls.certificates import Certificates
from edgeproxy.tls.settings import TlsListenSettings
from tests.authority import DAY_SECS, Issued, authority_pem, issued, pem_of
from tests.events import Events, events_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A, B = issued("a.example"), issued("b.example")


@pytest.fixture(autouse=True)
def events() -> Iterator[Events]:
    with events_of("tls") as events:
        yield events


@pytest.fixture
def web(tmp_path: Path) -> TlsListenSettings:
    """The settings of a listener with the pair A."""
    cert, key = A.put(tmp_path, "web")
    return TlsListenSettings(enabled=True, cert=cert, key=key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "certs"
    made.mkdir()
    return made


def from_folder(folder: Path) -> Certificates:
    return Certificates(TlsListenSettings(cert_dir=folder))


def loaded(settings: TlsListenSettings) -> Certificates:
    """Return the certificates of these settings, which have been read."""
    certificates = Certificates(settings)
    certificates.load()
    return certificates


def names(settings: TlsSettings | None) -> list[tuple[str, ...]]:
    assert settings is not None
    return [each.names for each in settings.certificates]


def complaint(settings: TlsListenSettings) -> str:
    with pytest.raises(TlsError) as error:
        Certificates(settings).load()
    return str(error.value)


def replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of one, at once."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def overwrite(path: Path, content: bytes) -> None:
    """Write into the file that is there."""
    path.write_bytes(content)


# --- what engines are given


def test_a_pair_becomes_what_engines_take(web: TlsListenSettings, events: Events) -> None:
    certificates = Certificates(web)
    settings = certificates.load()
    assert [(each.chain_pem, each.key_pem) for each in settings.certificates] == [(A.chain, A.key)]
    assert names(settings) == [("a.example",)]
    assert (settings.alpn, settings.client_ca_pem, settings.handshake_secs) == ((), b"", 5.0)
    expires = load_pem_x509_certificate(A.cert).not_valid_after_utc
    assert certificates.expires_at == expires.timestamp()
    assert events.all == [
        (
            "info",
            "certificates",
            {"count": 1, "names": 1, "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}"},
        )
    ]


def test_what_else_is_set_is_passed_on(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"ours\n" + A.key + authority_pem() + A.cert)
    given = TlsListenSettings(alpn=("h2", "http/1.1"), client_ca=ca)
    settings = Certificates(given).load()
    assert settings.alpn == ("h2", "http/1.1")
    assert settings.client_ca_pem == authority_pem() + A.cert


def test_nothing_given_makes_a_self_signed_certificate(events: Events) -> None:
    certificates = Certificates(TlsListenSettings())
    settings = certificates.load()
    assert names(settings) == [("edgeproxy.internal", "localhost")]
    [told] = events.named("certificate_self_signed")
    assert told["names"] == "edgeproxy.internal,localhost,127.0.0.1,::1"
    assert certificates.expires_at > time.time() + 396 * DAY_SECS
    assert certificates.reload() is None


def test_a_self_signed_certificate_stays_when_something_else_changes(
    tmp_path: Path, events: Events
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority_pem())
    certificates = Certificates(TlsListenSettings(client_ca=ca))
    before = certificates.load()
    replace(ca, authority_pem() + A.cert)
    after = certificates.reload()
    assert after is not None
    assert after.certificates == before.certificates
    assert after.client_ca_pem == authority_pem() + A.cert
    assert len(events.named("certificate_self_signed")) == 1


def test_both_may_be_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(A.key + A.chain)
    [certificate] = Certificates(TlsListenSettings(cert=both, key=both)).load().certificates
    assert (certificate.chain_pem, certificate.key_pem) == (A.chain, A.key)


# --- a directory


def test_a_directory_gives_all_its_pairs_in_order(folder: Path) -> None:
    for name in ("b", "a", "c.example.com"):
        issued(f"{name[0]}.example", f"*.{name[0]}.example").put(folder, name)
    d = issued("d.example")
    (folder / "d.pem").write_bytes(d.key + d.chain)
    (folder / "B.crt").write_bytes(A.chain + A.key)
    for ignored in ("README", "a.crt~", ".f.crt", "a.csr", ".crt", ".key"):
        (folder / ignored).write_text("nothing of interest")
    (folder / "old").mkdir()
    assert names(from_folder(folder).load()) == [
        ("a.example",),
        ("*.a.example",),
        ("b.example", "*.b.example"),
        ("c.example", "*.c.example"),
        ("d.example",),
    ]


def test_a_key_may_stand_beside_a_pem_file(folder: Path) -> None:
    A.put(folder, "a", ending="pem")
    assert names(from_folder(folder).load()) == [("a.example",)]


def test_who_asks_for_no_name_gets_the_default(folder: Path) -> None:
    A.put(folder, "a")
    B.put(folder, "default")
    assert names(from_folder(folder).load()) == [("b.example",), ("a.example",)]


def test_who_asks_for_no_name_gets_the_single_pair_before_the_default(
    web: TlsListenSettings, folder: Path
) -> None:
    B.put(folder, "default")
    issued("c.example").put(folder, "aaa")
    given = TlsListenSettings(cert=web.cert, key=web.key, cert_dir=folder)
    assert names(Certificates(given).load()) == [("a.example",), ("b.example",), ("c.example",)]


def test_a_single_pair_does_beside_an_empty_directory(web: TlsListenSettings, folder: Path) -> None:
    given = TlsListenSettings(cert=web.cert, key=web.key, cert_dir=folder)
    assert names(Certificates(given).load()) == [("a.example",)]


def test_of_a_name_that_several_have_the_first_keeps_it(folder: Path) -> None:
    issued("a.example", "b.example").put(folder, "1")
    issued("b.example", "c.example").put(folder, "2")
    assert names(from_folder(folder).load()) == [("a.example", "b.example"), ("c.example",)]


def test_the_first_to_expire_counts(folder: Path) -> None:
    issued("a.example", expires_in=3 * DAY_SECS).put(folder, "a")
    issued("b.example", expires_in=2 * DAY_SECS).put(folder, "b")
    issued("c.example", expires_in=4 * DAY_SECS).put(folder, "c")
    certificates = from_folder(folder)
    certificates.load()
    assert round((certificates.expires_at - time.time()) / DAY_SECS) == 2


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline",
        b"\x1b[31mred",
        b"caf\xc3\xa9",
        b"\xff\xfe",
        b"a b",
        b"-rf",
        b"%s{}",
        b"x" * 240,
    ],
)
def test_names_of_files_can_be_anything(folder: Path, events: Events, name: bytes) -> None:
    stem = os.fsdecode(name)
    cert, key = A.put(folder, stem)
    certificates = from_folder(folder)
    assert names(certificates.load()) == [("a.example",)]
    key.unlink()
    assert certificates.reload() is None
    [told] = events.named("certificates_bad")
    assert str(told["reason"]).isprintable()
    said = complaint(TlsListenSettings(cert_dir=folder))
    assert said.isprintable()
    assert (str(cert) if stem.isprintable() else ascii(str(cert))) in said


# --- what ends the start


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            TlsListenSettings(cert=Path("web.crt")),
            "EDGEPROXY_TLS_CERT is set and EDGEPROXY_TLS_KEY is not; set both",
        ),
        (
            TlsListenSettings(key=Path("web.key"), cert_dir=Path("certs")),
            "EDGEPROXY_TLS_KEY is set and EDGEPROXY_TLS_CERT is not; set both",
        ),
        (
            TlsListenSettings(cert=Path("/no/web.crt"), key=Path("/no/web.key")),
            "/no/web.crt: cannot be read: No such file or directory; correct the path",
        ),
        (
            TlsListenSettings(cert=Path("/dev/null"), key=Path("/dev/null")),
            "/dev/null: it is not a regular file",
        ),
        (
            TlsListenSettings(cert=Path("a\0b"), key=Path("a\0b")),
            "'a\\x00b': cannot be read: embedded null byte",
        ),
        (
            TlsListenSettings(cert_dir=Path("/no/certs")),
            "/no/certs: cannot be read: No such file or directory; correct EDGEPROXY_TLS_CERT_DIR",
        ),
        (
            TlsListenSettings(cert_dir=Path("a\0b")),
            "'a\\x00b': cannot be read: embedded null byte",
        ),
        (
            TlsListenSettings(client_ca=Path("/no/ca.pem")),
            "/no/ca.pem: cannot be read: No such file or directory",
        ),
    ],
)
def test_bad_settings_are_named(given: TlsListenSettings, said: str) -> None:
    assert complaint(given).startswith(said)


def traditional(key: rsa.RSAPrivateKey | dsa.DSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, Unprotected())


EC_KEY = ec.generate_private_key(ec.SECP256R1())
PROTECTED = issued("a.example", key=EC_KEY)
OLD_CURVE = issued("a.example", key=ec.generate_private_key(ec.SECP256K1()))
SHORT_RSA = issued("a.example", key=rsa.generate_private_key(65537, 1024))
EXPIRED = issued("a.example", begins_in=-2 * DAY_SECS, expires_in=-DAY_SECS)
FUTURE = issued("a.example", begins_in=DAY_SECS, expires_in=2 * DAY_SECS)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        (b"", A.key, "web.crt: holds no certificate in PEM form, which begins with -----BEGIN"),
        (A.key, A.key, "web.crt: holds no certificate in PEM form"),
        (b"\x30\x82\x01", A.key, "web.crt: holds no certificate in PEM form"),
        (b"x" * (1 << 20) + b"x", A.key, "web.crt: it is larger than 1 MiB; a PEM file is needed"),
        (A.cert[:200], A.key, "web.crt: a BEGIN or END line has no counterpart, the file is cut"),
        (A.cert.replace(b"MII", b"MIJ"), A.key, "web.crt: certificate 1 of 1 is damaged"),
        (A.cert + B.cert.replace(b"MII", b"%%%"), A.key, "web.crt: certificate 2 of 2 is damaged"),
        (A.chain, b"", "web.key: holds no private keys in PEM form; one is needed"),
        (A.chain, A.cert, "web.key: holds no private keys in PEM form; one is needed"),
        (A.chain, A.key + B.key, "web.key: holds 2 private keys in PEM form; one is needed"),
        (A.chain, A.key.replace(b"MIG", b"MIH"), "web.key: the private key is damaged"),
        (A.chain, A.key[:-9], "web.key: a BEGIN or END line has no counterpart"),
        (
            PROTECTED.chain,
            pem_of(EC_KEY, passphrase=b"secret"),
            "web.key: the private key is protected by a passphrase; write it without one",
        ),
        (OLD_CURVE.chain, OLD_CURVE.key, "web.key: clients do not trust this kind of private key"),
        (SHORT_RSA.chain, SHORT_RSA.key, "web.key: clients do not trust this kind of private key"),
        (
            A.chain,
            traditional(dsa.generate_private_key(1024)),
            "web.key: clients do not trust this kind of private key; allowed are ECDSA on P-256",
        ),
        (A.chain, B.key, "web.key does not match this certificate; use the two files of one pair"),
        (A.ca + A.cert, A.key, "web.key belongs to certificate 2; put that one first"),
        (EXPIRED.chain, EXPIRED.key, "web.crt: the certificate expired at 2"),
        (FUTURE.chain, FUTURE.key, "web.crt: the certificate is not valid before 2"),
    ],
)
def test_a_pair_that_cannot_be_used_ends_the_start(
    tmp_path: Path, cert: bytes, key: bytes, said: str
) -> None:
    (tmp_path / "web.crt").write_bytes(cert)
    (tmp_path / "web.key").write_bytes(key)
    single = TlsListenSettings(cert=tmp_path / "web.crt", key=tmp_path / "web.key")
    assert f"{tmp_path}/{said}" in complaint(single)
    issued("b.example").put(tmp_path, "b")
    assert f"{tmp_path}/{said}" in complaint(TlsListenSettings(cert_dir=tmp_path))


def test_an_expired_authority_in_a_chain_is_left_to_the_clients(tmp_path: Path) -> None:
    cert, key = tmp_path / "web.crt", tmp_path / "web.key"
    cert.write_bytes(A.cert + EXPIRED.cert)
    key.write_bytes(A.key)
    Certificates(TlsListenSettings(cert=cert, key=key)).load()


def test_a_pipe_ends_the_start_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "web.crt"
    os.mkfifo(pipe)
    given = TlsListenSettings(cert=pipe, key=pipe)
    assert f"{pipe}: it is not a regular file" in complaint(given)


@pytest.mark.parametrize("content", [b"", A.key, A.cert[:-30], A.cert.replace(b"MII", b"MIJ")])
def test_authorities_that_cannot_be_read_end_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    assert complaint(TlsListenSettings(client_ca=path)).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, ": holds no certificates; put pairs of NAME.crt and NAME.key there"),
        ({".hidden.crt": A.chain, "README": b"x"}, ": holds no certificates"),
        ({"a.key": A.key}, "/a.key: there is no certificate of that name"),
        ({"a.crt": A.chain}, "/a.crt: holds no private keys"),
        ({"a.crt": A.chain, "a.pem": A.chain, "a.key": A.key}, "/a.crt: there is a .pem of that"),
    ],
)
def test_a_directory_that_makes_no_sense_ends_the_start(
    folder: Path, files: dict[str, bytes], said: str
) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert complaint(TlsListenSettings(cert_dir=folder)).startswith(f"{folder}{said}")


def test_a_link_that_leads_nowhere_ends_the_start(folder: Path) -> None:
    (folder / "a.crt").symlink_to("gone")
    assert "/a.crt: cannot be read: No such file" in complaint(TlsListenSettings(cert_dir=folder))


# --- how changes are followed


@pytest.mark.parametrize("put", [replace, overwrite])
def test_a_new_pair_is_taken(
    web: TlsListenSettings, events: Events, put: Callable[[Path, bytes], None]
) -> None:
    certificates = loaded(web)
    assert web.cert
    assert web.key
    for turn in range(10):
        fresh = issued(f"n{turn}.example", expires_in=(2 + turn) * DAY_SECS)
        put(web.cert, fresh.chain)
        put(web.key, fresh.key)
        assert names(certificates.reload()) == [(f"n{turn}.example",)]
        assert round((certificates.expires_at - time.time()) / DAY_SECS) == 2 + turn
        assert certificates.reload() is None
    assert len(events.named("certificates")) == 11
    assert certificates.errors == 0


def test_the_same_written_again_is_no_news(web: TlsListenSettings, events: Events) -> None:
    certificates = loaded(web)
    assert web.cert
    replace(web.cert, A.chain)
    assert certificates.reload() is None
    replace(web.cert, A.chain.replace(b"\n", b"\r\n"))
    assert certificates.reload() is None
    assert [name for _, name, _ in events.all] == ["certificates"]


def test_a_check_of_unchanged_files_opens_none(web: TlsListenSettings) -> None:
    certificates = loaded(web)

    def is_settled() -> bool:
        certificates.reload()
        errors = certificates.errors
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            assert certificates.reload() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        return certificates.errors == errors

    wait_until(is_settled, "a look that opens nothing")


@pytest.mark.parametrize("put", [replace, overwrite])
def test_a_certificate_that_is_there_before_its_key_waits_for_it(
    web: TlsListenSettings, events: Events, put: Callable[[Path, bytes], None]
) -> None:
    certificates = loaded(web)
    assert web.cert
    assert web.key
    put(web.cert, B.chain)
    for _ in range(3):
        assert certificates.reload() is None
    [told] = events.named("certificates_bad")
    assert "web.key does not match this certificate" in str(told["reason"])
    assert certificates.errors == 1
    put(web.key, B.key)
    assert names(certificates.reload()) == [("b.example",)]
    assert certificates.errors == 1


def test_each_bad_change_is_reported_once_and_the_old_pair_stays(
    web: TlsListenSettings, events: Events
) -> None:
    certificates = loaded(web)
    expires_at = certificates.expires_at
    assert web.cert
    for turn, content in enumerate([b"", b"x", A.chain[:100], EXPIRED.chain, b""], start=1):
        replace(web.cert, content)
        for _ in range(3):
            assert certificates.reload() is None
        assert certificates.errors == len(events.named("certificates_bad")) == turn
    assert certificates.expires_at == expires_at
    assert len(events.named("certificates")) == 1

    replace(web.cert, A.chain)
    assert certificates.reload() is None  # nothing new, but good again, and that is told
    assert len(events.named("certificates")) == 2
    assert certificates.errors == 5


def test_a_file_that_vanishes_and_comes_back(web: TlsListenSettings, events: Events) -> None:
    certificates = loaded(web)
    assert web.key
    away = web.key.with_suffix(".away")
    web.key.rename(away)
    assert certificates.reload() is None
    assert "No such file" in str(events.named("certificates_bad")[0]["reason"])
    away.rename(web.key)
    assert certificates.reload() is None
    assert len(events.named("certificates")) == 2


def test_what_failed_for_lack_of_file_descriptors_is_tried_again(
    web: TlsListenSettings, events: Events
) -> None:
    certificates = loaded(web)
    assert web.cert
    assert web.key
    replace(web.cert, B.chain)
    replace(web.key, B.key)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert certificates.reload() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "Too many open files" in str(events.named("certificates_bad")[0]["reason"])
    assert names(certificates.reload()) == [("b.example",)]


def test_a_pair_in_force_stays_good_when_it_expires(folder: Path) -> None:
    soon = issued("soon.example", expires_in=2)
    soon.put(folder, "soon")
    A.put(folder, "a")
    certificates = from_folder(folder)
    certificates.load()
    wait_until(lambda: time.time() > certificates.expires_at, "the end of a certificate")
    B.put(folder, "b")
    assert names(certificates.reload()) == [("a.example",), ("b.example",), ("soon.example",)]
    assert "expired" in complaint(TlsListenSettings(cert_dir=folder))


def test_a_pair_that_comes_too_early_is_taken_in_its_time(web: TlsListenSettings) -> None:
    certificates = loaded(web)
    early = issued("early.example", begins_in=2)
    assert web.cert
    assert web.key
    replace(web.cert, early.chain)
    replace(web.key, early.key)
    assert certificates.reload() is None
    found: list[TlsSettings] = []

    def is_taken() -> bool:
        found.extend(filter(None, [certificates.reload()]))
        return bool(found)

    wait_until(is_taken, "the early pair")
    assert names(found[0]) == [("early.example",)]
    assert certificates.errors == 1


# --- how changes of a directory are followed


def test_pairs_that_come_and_go(folder: Path) -> None:
    A.put(folder, "a")
    certificates = from_folder(folder)
    certificates.load()
    cert, key = B.put(folder, "b")
    assert names(certificates.reload()) == [("a.example",), ("b.example",)]
    cert.unlink()
    key.unlink()
    assert names(certificates.reload()) == [("a.example",)]
    assert certificates.errors == 0


def test_one_bad_pair_keeps_the_old_set(folder: Path, events: Events) -> None:
    A.put(folder, "a")
    certificates = from_folder(folder)
    certificates.load()
    cert, key = B.put(folder, "b")
    key.write_bytes(A.key)
    issued("c.example").put(folder, "c")
    assert certificates.reload() is None
    assert certificates.reload() is None
    assert f"{cert}: the private key" in str(events.named("certificates_bad")[0]["reason"])
    assert certificates.errors == 1
    key.write_bytes(B.key)
    assert names(certificates.reload()) == [("a.example",), ("b.example",), ("c.example",)]


@pytest.mark.parametrize("is_all", [True, False])
def test_a_directory_that_is_emptied_or_gone_keeps_the_old_set(
    folder: Path, events: Events, is_all: bool
) -> None:
    A.put(folder, "a")
    certificates = from_folder(folder)
    certificates.load()
    if is_all:
        shutil.rmtree(folder)
    else:
        for path in folder.iterdir():
            path.unlink()
    assert certificates.reload() is None
    assert len(events.named("certificates_bad")) == 1
    B.put(folder, "b")
    assert names(certificates.reload()) == [("b.example",)]


def test_a_swapped_link_as_kubernetes_does_it(folder: Path) -> None:
    def publish(version: str, pair: Issued) -> None:
        pair.put(folder / f"..{version}", "tls")
        (folder / "..data.new").symlink_to(f"..{version}")
        (folder / "..data.new").rename(folder / "..data")

    publish("1", A)
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(f"..data/{name}")
    single = Certificates(TlsListenSettings(cert=folder / "tls.crt", key=folder / "tls.key"))
    for certificates in (single, from_folder(folder)):
        certificates.load()
        publish(f"2-{id(certificates)}", B)
        assert names(certificates.reload()) == [("b.example",)]
        publish(f"3-{id(certificates)}", A)
        assert names(certificates.reload()) == [("a.example",)]
        assert certificates.errors == 0


def test_swapped_links_as_certbot_does_it(tmp_path: Path) -> None:
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir()

    def point(name: str, target: str) -> None:
        (live / "new").symlink_to(f"../archive/{target}")
        (live / "new").rename(live / name)

    A.put(archive, "1")
    point("fullchain.pem", "1.crt")
    point("privkey.pem", "1.key")
    certificates = Certificates(
        TlsListenSettings(cert=live / "fullchain.pem", key=live / "privkey.pem")
    )
    certificates.load()
    B.put(archive, "2")
    assert certificates.reload() is None
    assert certificates.errors == 0
    point("fullchain.pem", "2.crt")
    assert certificates.reload() is None
    point("privkey.pem", "2.key")
    assert names(certificates.reload()) == [("b.example",)]


def test_authorities_are_followed_and_bad_ones_keep_the_old(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority_pem())
    cert, key = A.put(tmp_path, "web")
    certificates = Certificates(TlsListenSettings(cert=cert, key=key, client_ca=ca))
    certificates.load()
    replace(ca, b"")
    assert certificates.reload() is None
    assert certificates.errors == 1
    replace(ca, A.cert)
    after = certificates.reload()
    assert after is not None
    assert after.client_ca_pem == A.cert


def test_while_files_are_written_only_whole_pairs_are_taken(folder: Path) -> None:
    """A writer goes on and on; each set that is taken fits together, the last one in the end."""
    pairs = [issued(f"p{number}.example") for number in range(4)]
    pairs[0].put(folder, "web")
    certificates = from_folder(folder)
    certificates.load()
    keys = {each.chain: each.key for each in pairs}
    taken: list[TlsSettings] = []
    done = threading.Event()

    def write() -> None:
        for turn in range(200):
            pair = pairs[turn % len(pairs)]
            put = replace if turn % 3 else overwrite
            put(folder / "web.crt", pair.chain)
            put(folder / "web.key", pair.key)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            taken.extend(filter(None, [certificates.reload()]))
    finally:
        writer.join()
    taken.extend(filter(None, [certificates.reload()]))
    for settings in taken:
        [certificate] = settings.certificates
        assert keys[certificate.chain_pem] == certificate.key_pem
    assert taken[-1].certificates[0].chain_pem == pairs[199 % len(pairs)].chain
