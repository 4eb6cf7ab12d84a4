"""Derives the value that ties a proof to one QUIC connection, the same at both ends.

It is a hash of the secrets of the TLS session, which both ends know and nobody else, and which
differ between two connections even of the same two ends: TLS derives them from all of the
handshake, the certificate included. So a man in the middle, who has one session with each end, has
two values. aioquic tells the secrets to the file that it logs them to, and this is that file.
Nothing is kept of them but the hash.
"""

from __future__ import annotations

import hashlib
import io

_LABELS = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")


class Channel(io.StringIO):
    """A file for `QuicConfiguration.secrets_log_file`, one for each connection."""

    def __init__(self) -> None:
        super().__init__()
        self._hashes: dict[str, bytes] = {}

    def write(self, line: str, /) -> int:
        """Take note of a secret: `LABEL client-random secret`, the last two in hexadecimal."""
        label = line.split(" ", 1)[0]
        if label in _LABELS:
            self._hashes[label] = hashlib.sha256(line.encode()).digest()
        return len(line)

    def value(self) -> bytes:
        """Return the value: 32 bytes. It is there as soon as the handshake is complete."""
        hashes = b"".join(self._hashes[label] for label in _LABELS)
        return hashlib.sha256(b"edgeproxy channel" + hashes).digest()
