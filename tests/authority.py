"""Certificates for tests, made in milliseconds; nobody else trusts them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

HOUR_SECS = 3600.0
DAY_SECS = 24 * HOUR_SECS


@dataclass(frozen=True)
class Issued:
    """A certificate, its key and its authority, as PEM."""

    cert: bytes
    key: bytes
    ca: bytes

    @property
    def chain(self) -> bytes:
        return self.cert + self.ca

    def put(self, folder: Path, name: str, ending: str = "crt") -> tuple[Path, Path]:
        """Write NAME.crt, with its authority, and NAME.key."""
        folder.mkdir(exist_ok=True)
        cert, key = folder / f"{name}.{ending}", folder / f"{name}.key"
        cert.write_bytes(self.chain)
        key.write_bytes(self.key)
        return cert, key


def pem_of(key: CertificateIssuerPrivateKeyTypes, passphrase: bytes = b"") -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def issued(
    *names: str,
    common_name: str = "",
    begins_in: float = -HOUR_SECS,
    expires_in: float = DAY_SECS,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    san: x509.SubjectAlternativeName | None = None,
) -> Issued:
    """Return a certificate for these names. Times are seconds from now."""
    authority = _authority()
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = time.time()
    builder = _begun(common_name, key, now + begins_in, now + expires_in).issuer_name(_AUTHORITY)
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    if san:
        builder = builder.add_extension(san, critical=False)
    cert = builder.sign(authority, hashes.SHA256())
    return Issued(cert.public_bytes(serialization.Encoding.PEM), pem_of(key), authority_pem())


@cache
def authority_pem() -> bytes:
    """Return the certificate of who issues them."""
    key, now = _authority(), time.time()
    builder = _begun("Authority", key, now - HOUR_SECS, now + DAY_SECS).issuer_name(_AUTHORITY)
    ca = x509.BasicConstraints(ca=True, path_length=None)
    cert = builder.add_extension(ca, critical=True).sign(key, hashes.SHA256())
    return cert.public_bytes(serialization.Encoding.PEM)


_AUTHORITY = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority")])


@cache
def _authority() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _begun(
    common_name: str, key: CertificateIssuerPrivateKeyTypes, begins: float, expires: float
) -> x509.CertificateBuilder:
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(begins), UTC))
        .not_valid_after(datetime.fromtimestamp(int(expires), UTC))
    )
