"""Reading PEM files: whatever they hold, it is read right or refused."""

from __future__ import annotations

import time
from base64 import b64decode, encodebytes
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.tls import TlsError
from edgeproxy.tls import pem
from tests.authority import Issued, issued, pem_of

CRT, KEY = Path("web.crt"), Path("web.key")


@cache
def web() -> Issued:
    return issued("example.com", "*.example.com")


@cache
def rsa_pair() -> Issued:
    return issued("example.com", key=rsa.generate_private_key(65537, 2048))


def read(chain: bytes, key: bytes) -> pem.Pair:
    return pem.pair(CRT, chain, KEY, key, time.time())


def complaint(chain: bytes, key: bytes) -> str:
    with pytest.raises(TlsError) as error:
        read(chain, key)
    return str(error.value)


# --- what is read


def test_a_chain_is_kept_in_its_order_and_nothing_else_is() -> None:
    chain = b"subject=/CN=x\n" + web().key + web().cert + b"issuer\n" + web().ca
    found = read(chain, web().key)
    assert found.certificate.chain_pem == web().chain
    assert found.certificate.key_pem == web().key
    read_back = x509.load_pem_x509_certificate(web().cert)
    assert found.expires_at == read_back.not_valid_after_utc.timestamp()


def test_line_ends_and_a_byte_order_mark_make_no_difference() -> None:
    odd = b"\xef\xbb\xbf" + web().chain.replace(b"\n", b"\r\n")
    assert read(odd, web().key.replace(b"\n", b"\r\n")) == read(web().chain, web().key)


def test_old_forms_of_keys_are_read() -> None:
    key = load_pem_private_key(web().key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert b"BEGIN EC PRIVATE KEY" in old
    assert read(web().chain, parameters + old).certificate.key_pem == web().key


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "P-521", "RSA", "Ed25519"],
)
def test_allowed_kinds_of_keys(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    pair = issued("example.com", key=key)
    assert read(pair.chain, pair.key).certificate.key_pem == pair.key


# --- names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (issued("Example.COM", "example.com"), ("example.com",)),
        (issued("*.example.com", "a_b.example.com"), ("*.example.com", "a_b.example.com")),
        (issued("example.com", common_name="other.example"), ("example.com",)),
        (issued(common_name="Other.example"), ("other.example",)),
        (issued(common_name="Our Web Server, Inc."), ()),
        (issued("a b", "x\n", "", "*", "*.*.example", "a*.example", "-", "ok.example"), None),
        (issued("a" * 250 + ".example"), ()),
        (issued(), ()),
        (
            issued(
                common_name="unused.example",
                san=x509.SubjectAlternativeName([x509.RFC822Name("root@example.com")]),
            ),
            (),
        ),
    ],
)
def test_names_are_those_that_clients_can_ask_for(
    given: Issued, names: tuple[str, ...] | None
) -> None:
    found = read(given.chain, given.key).certificate.names
    if names is not None:
        assert found == names
    else:
        assert "ok.example" in found
        assert not {"a b", "x\n", "", "*", "*.*.example", "a*.example"} & set(found)


# --- what is refused


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    whole = {len(web().cert), len(web().cert) - 1, len(web().chain) - 1}
    for end in set(range(len(web().chain))) - whole:
        complaint(web().chain[:end], web().key)


@given(st.data())
def test_damaged_certificates_raise_nothing_but_tls_errors(data: st.DataObject) -> None:
    der = bytearray(x509.load_pem_x509_certificate(web().cert).public_bytes(Encoding.DER))
    for place in data.draw(st.lists(st.integers(0, len(der) - 1), min_size=1, max_size=4)):
        der[place] = data.draw(st.integers(0, 255))
    block = b"-----BEGIN CERTIFICATE-----\n" + encodebytes(bytes(der))
    with suppress(TlsError):
        found = read(block + b"-----END CERTIFICATE-----\n", web().key)
        assert found.certificate.key_pem == web().key


@given(st.data())
def test_damaged_keys_are_refused_or_can_still_sign(data: st.DataObject) -> None:
    whole = rsa_pair().key.splitlines(keepends=True)
    der = bytearray(b64decode(b"".join(whole[1:-1])))
    for place in data.draw(st.lists(st.integers(0, len(der) - 1), min_size=1, max_size=4)):
        der[place] = data.draw(st.integers(0, 255))
    with suppress(TlsError):
        found = read(rsa_pair().chain, whole[0] + encodebytes(bytes(der)) + whole[-1])
        key = load_pem_private_key(
            found.certificate.key_pem, None, unsafe_skip_rsa_key_validation=True
        )
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(b"it", padding.PKCS1v15(), hashes.SHA256())
        certified = x509.load_pem_x509_certificate(rsa_pair().cert).public_key()
        assert isinstance(certified, rsa.RSAPublicKey)
        certified.verify(signature, b"it", padding.PKCS1v15(), hashes.SHA256())


def test_an_rsa_key_that_signs_wrongly_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    good = key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d + 2, good.dmp1 + 2, good.dmq1, good.iqmp, good.public_numbers
    )
    bad = pem_of(wrong.private_key(unsafe_skip_rsa_key_validation=True))
    assert "web.key: the private key is damaged" in complaint(issued("a", key=key).chain, bad)


@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_but_tls_errors(noise: bytes) -> None:
    complaint(noise, web().key)
    complaint(web().chain, noise)
    complaint(web().cert[:40] + noise + web().cert[60:], web().key)


def test_a_file_full_of_beginnings_takes_no_time() -> None:
    began = time.monotonic()
    complaint(b"-----BEGIN CERTIFICATE-----\n" * 37_000, web().key)
    assert time.monotonic() - began < 5


def test_no_message_and_no_value_shows_a_key() -> None:
    secret = web().key.splitlines()[1].decode()
    other = issued("other.example")
    for chain, key in (
        (other.chain, web().key),
        (b"", web().key),
        (web().chain, web().key * 2),
        (web().chain, web().key[:-20]),
        (web().chain, web().key.replace(b"\nM", b"\nX", 1)),
    ):
        assert secret not in complaint(chain, key)
    assert secret not in repr(read(web().chain, web().key))
