"""Certificates for tests: an authority, and who it vouches for; made once, ECDSA P-256."""

from __future__ import annotations

import datetime as dt
from functools import cache
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from edgeproxy.engine.tls import Certificate

DAY = dt.timedelta(days=1)


class Signed(NamedTuple):
    """A certificate and its key, as objects and as PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def locked_key_pem(self) -> bytes:
        """The key, encrypted with a password that nobody is told."""
        locked = BestAvailableEncryption(b"secret")
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)

    def for_names(self, *names: str) -> Certificate:
        """Return it as an engine takes it."""
        return Certificate(self.pem, self.key_pem, names)


OURS = "test authority"


@cache
def authority(name: str) -> Signed:
    """Return who signs."""
    return _signed(name, None, ())


@cache
def certificate(*names: str, signed_by: str = OURS) -> Signed:
    """Return a certificate for these names, signed by that authority."""
    return _signed(names[0], authority(signed_by), names)


@cache
def named_certificate(common_name: str) -> Signed:
    """Return a certificate with this common name, however strange; without one if it is ""."""
    return _signed(common_name, authority(OURS), ("named.test",))


@cache
def expired_certificate(name: str) -> Signed:
    """Return a certificate that was good until an hour ago."""
    return _signed(name, authority(OURS), (name,), -DAY / 24)


def _signed(
    name: str, issuer: Signed | None, names: tuple[str, ...], ends_in: dt.timedelta = DAY
) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + ends_in)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        others = [x509.DNSName(each) for each in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    made = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Signed(made, key)


def _subject(common_name: str) -> x509.Name:
    if not common_name:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
