"""Makes a self-signed certificate, kept in memory, for listeners without one.

It is valid for `NAMES` and `ADDRESSES`, uses ECDSA on P-256, and ends with the process.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from edgeproxy.engine.tls import Certificate

NAMES = ("edgeproxy.internal", "localhost")
ADDRESSES = ("127.0.0.1", "::1")
VALID = timedelta(days=397)
EARLIER = timedelta(hours=1)
"""How long before now it becomes valid, because the clocks of clients differ."""


def self_signed(now: float) -> tuple[Certificate, float]:
    """Return a new certificate and its expiry. Both times are in Unix seconds."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAMES[0])])
    begins = datetime.fromtimestamp(now, UTC).replace(microsecond=0) - EARLIER
    alternatives = [
        *map(x509.DNSName, NAMES),
        *(x509.IPAddress(ip_address(each)) for each in ADDRESSES),
    ]
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + VALID)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = Certificate(
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        NAMES,
    )
    return certificate, (begins + VALID).timestamp()
