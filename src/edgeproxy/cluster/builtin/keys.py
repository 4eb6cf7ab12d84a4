"""The keys of a cluster: whoever holds one is believed.

The first key of a ring seals, every key opens. So a key is replaced without a gap: add the new one
behind the old one everywhere, then put it first everywhere, then take the old one away. A datagram
names its key by an id, so that none is tried in vain. No text of this module holds a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from edgeproxy import regular_file
from edgeproxy.errors import ConfigError
from edgeproxy.values import BadValueError, Secret

KEY_BYTES = 32
ID_BYTES = 4

_ALLOWED = (
    "allowed are keys of 32 bytes in Base64 with commas between, the one to seal with first; "
    "`openssl rand -base64 32` makes one"
)


class ClusterKey:
    """One key.

    Attributes:
        id: Names it in a datagram, and in metrics; says nothing about it.
    """

    __slots__ = ("_bytes", "id")

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_BYTES
        self._bytes = key
        self.id = hashlib.blake2b(b"edgeproxy key id", digest_size=ID_BYTES, key=key).digest()

    def derived(self, purpose: bytes) -> bytes:
        """Return a key of 32 bytes for one purpose (HKDF with SHA-256, RFC 5869)."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), KEY_BYTES, None, purpose).derive(self._bytes)

    def __repr__(self) -> str:
        return f"<cluster key {self.id.hex()}>"


class KeyRing:
    """The keys of a cluster, by their ids; the first one seals."""

    __slots__ = ("_keys", "primary")

    def __init__(self, keys: tuple[ClusterKey, ...]) -> None:
        assert keys
        self.primary = keys[0]
        self._keys = {key.id: key for key in keys}

    def __iter__(self) -> Iterator[ClusterKey]:
        return iter(self._keys.values())

    def __repr__(self) -> str:
        return f"<key ring {' '.join(key.id.hex() for key in self)}>"


def new_key() -> Secret:
    """Return a new key as text, as a ring takes it."""
    return Secret(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())


def key_ring(text: Secret) -> KeyRing:
    """Return the ring of keys with commas or line ends between. Raises BadValueError.

    Empty lines and those that begin with `#` are skipped.
    """
    lines = (line.strip() for line in text.reveal().splitlines())
    entries = [
        part.strip() for line in lines if not line.startswith("#") for part in line.split(",")
    ]
    keys = [_key(entry) for entry in entries if entry]
    if not keys:
        raise BadValueError(f"there is no key in it; {_ALLOWED}")
    if len({key.id for key in keys}) < len(keys):
        raise BadValueError("a key is in it twice; remove one")
    return KeyRing(tuple(keys))


def key_ring_file(path: Path) -> KeyRing:
    """Return the ring in a file, one key a line. Raises ConfigError."""
    try:
        return key_ring(Secret(regular_file.read_text(path, regular_file.MAX_TOKEN_BYTES)))
    except OSError as error:
        raise ConfigError(f"cannot read the keys in {path}: {error.strerror}") from None
    except BadValueError as error:
        raise ConfigError(f"the keys in {path}: {error}") from None
    except ValueError:
        raise ConfigError(f"the keys in {path} are no UTF-8 text; {_ALLOWED}") from None


def _key(entry: str) -> ClusterKey:
    try:
        key = base64.b64decode(entry, validate=True)
    except (binascii.Error, ValueError):
        raise BadValueError(f"a key is no Base64; {_ALLOWED}") from None
    if len(key) != KEY_BYTES:
        raise BadValueError(f"a key has {len(key)} bytes; {_ALLOWED}")
    if key == bytes(KEY_BYTES):
        raise BadValueError(f"a key consists of zeros; {_ALLOWED}")
    return ClusterKey(key)
