"""Reads certificates and keys from PEM files and checks that they can be used.

The result is encoded again, so that no two parsers can read it differently. From a file's content,
messages show only dates.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy import regular_file
from edgeproxy.engine.tls import Certificate, TlsError
from edgeproxy.host_name import name_or_wildcard
from edgeproxy.regular_file import UnsuitableFileError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MIN_RSA_BITS = 2048

_EDGE = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]{1,64})-----")
_CERTIFICATE = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY = b"PRIVATE KEY"


class Pair(NamedTuple):
    """A certificate with its key, and its expiry in Unix seconds."""

    certificate: Certificate
    expires_at: float


def shown(path: Path) -> str:
    """Return a path as one line of text."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def moment(seconds: float) -> str:
    """Return a time in Unix seconds as ISO 8601 text."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def read(path: Path) -> bytes:
    """Return the content of a file. Raises TlsError."""
    try:
        return regular_file.read(path, regular_file.MAX_PEM_BYTES)
    except UnsuitableFileError as error:
        raise TlsError(f"{shown(path)}: {error.strerror}; a PEM file is needed") from None
    except (OSError, ValueError) as error:
        raise TlsError(
            f"{shown(path)}: cannot be read: {getattr(error, 'strerror', error)}; correct the "
            "path, or let the user that edgeproxy runs as read it"
        ) from error


def pair(chain_path: Path, chain_pem: bytes, key_path: Path, key_pem: bytes, now: float) -> Pair:
    """Return the pair in two files, which may be the same file. Raises TlsError."""
    chain = _certificates(chain_path, chain_pem)
    key = _private_key(key_path, key_pem)
    _compare(chain, chain_path, key, key_path)
    begins, expires = (
        time.timestamp() for time in (chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)
    )
    if expires <= now:
        raise TlsError(
            f"{shown(chain_path)}: the certificate expired at {moment(expires)}; renew it"
        )
    if begins > now:
        raise TlsError(
            f"{shown(chain_path)}: the certificate is not valid before {moment(begins)}; wait, or "
            "set the clock of this host right"
        )
    from cryptography.hazmat.primitives import serialization

    key_as_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(Certificate(_as_pem(chain), key_as_pem, _names(chain[0], chain_path)), expires)


def authorities(path: Path, content: bytes) -> bytes:
    """Return the certificates in a file, as PEM. Raises TlsError."""
    return _as_pem(_certificates(path, content))


def _blocks(path: Path, content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the label and the text of each block. Raises TlsError if a block is cut off."""
    blocks: list[tuple[bytes, bytes]] = []
    begun: re.Match[bytes] | None = None
    for edge in _EDGE.finditer(content):
        is_end = edge[1] == b"END"
        if is_end != (begun is not None) or (begun is not None and begun[2] != edge[2]):
            break
        if begun is not None:
            blocks.append((begun[2], content[begun.start() : edge.end()]))
        begun = None if is_end else edge
    else:
        last_line = content.rpartition(b"\n")[2]
        if begun is None and (last_line[:1] != b"-" or _EDGE.match(last_line)):
            return blocks
    raise TlsError(
        f"{shown(path)}: a BEGIN or END line has no counterpart, the file is cut off or damaged; "
        "write it anew"
    )


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    blocks = [text for label, text in _blocks(path, content) if label in _CERTIFICATE]
    if not blocks:
        raise TlsError(
            f"{shown(path)}: holds no certificate in PEM form, which begins with "
            "-----BEGIN CERTIFICATE-----; for DER: openssl x509 -inform der -in FILE"
        )
    certificates = []
    for number, block in enumerate(blocks, start=1):
        try:
            certificates.append(x509.load_pem_x509_certificate(block))
        except Exception:  # noqa: BLE001 - a foreign parser over a foreign file
            raise TlsError(
                f"{shown(path)}: certificate {number} of {len(blocks)} is damaged; write it anew"
            ) from None
    return certificates


def _private_key(path: Path, content: bytes) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    blocks = [text for label, text in _blocks(path, content) if label.endswith(_KEY)]
    if len(blocks) != 1:
        raise TlsError(
            f"{shown(path)}: holds {len(blocks) or 'no'} private keys in PEM form; one is needed, "
            "which begins with -----BEGIN PRIVATE KEY-----"
        )
    try:
        # validating an RSA key takes up to 200 ms, one signature takes 2 ms
        key = serialization.load_pem_private_key(
            blocks[0], password=None, unsafe_skip_rsa_key_validation=True
        )
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except TypeError:
        raise TlsError(
            f"{shown(path)}: the private key is protected by a passphrase; write it without one: "
            "openssl pkey -in FILE -out NEW"
        ) from None
    except Exception:  # noqa: BLE001 - a foreign parser over a foreign file
        raise TlsError(f"{shown(path)}: the private key is damaged; write it anew") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise TlsError(
        f"{shown(path)}: clients do not trust this kind of private key; allowed are ECDSA on "
        f"P-256, P-384 or P-521, RSA of {MIN_RSA_BITS} bits or more, and Ed25519"
    )


def _compare(
    chain: list[x509.Certificate], chain_path: Path, key: PrivateKeyTypes, key_path: Path
) -> None:
    """Raise TlsError if the first certificate does not match the key."""
    public = key.public_key()
    for number, certificate in enumerate(chain, start=1):
        try:
            is_match = certificate.public_key() == public
        except Exception:  # noqa: BLE001 - a key that cryptography does not know
            is_match = False
        if is_match and number == 1:
            return
        if is_match:
            raise TlsError(
                f"{shown(chain_path)}: the private key in {shown(key_path)} belongs to "
                f"certificate {number}; put that one first, then its intermediates"
            )
    raise TlsError(
        f"{shown(chain_path)}: the private key in {shown(key_path)} does not match this "
        "certificate; use the two files of one pair"
    )


def _names(certificate: x509.Certificate, path: Path) -> tuple[str, ...]:
    """Return the server names that clients can send for it, each once."""
    try:
        listed = _alternative_names(certificate)
    except Exception:  # noqa: BLE001 - a foreign parser over a foreign file
        raise TlsError(
            f"{shown(path)}: the names of the certificate are damaged; write it anew"
        ) from None
    return tuple(dict.fromkeys(name for name in map(name_or_wildcard, listed) if name is not None))


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return [str(name.value) for name in common]
    return extension.value.get_values_for_type(x509.DNSName)


def _as_pem(certificates: list[x509.Certificate]) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return b"".join(
        certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates
    )
