"""The authorities that sign the certificates of backends: read at start, reloaded on change.

A file that turns bad is reported once; the authorities read before stay in force.
"""

from __future__ import annotations

from pathlib import Path

from edgeproxy.engine.tls import TlsError
from edgeproxy.errors import EdgeProxyError
from edgeproxy.log import EventLog
from edgeproxy.tls import pem

log = EventLog("tls")


class Authorities:
    """Reads the authorities from a PEM file.

    Call `load` first. `load` and `reload` may run in any thread, one call at a time.

    Attributes:
        in_force: The certificates read last, in PEM; for any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.in_force = b""
        self._seen = b""
        self._reported = ""

    def load(self) -> bytes:
        """Return the certificates in the file, in PEM. Raises TlsError."""
        content = pem.read(self._path)
        authorities = pem.authorities(self._path, content)
        self._seen = content
        self.in_force = authorities
        return authorities

    def reload(self) -> bytes | None:
        """Return the certificates if the file changed and is good, else None. Never raises."""
        before = self._seen
        try:
            if pem.read(self._path) == before:
                self._reported = ""
                return None
            authorities = self.load()
        except TlsError as error:
            if self._reported != str(error):
                self._reported = str(error)
                log.warning("authorities_bad", reason=error)
            return None
        self._reported = ""
        log.info("authorities", count=authorities.count(b"-----BEGIN "))
        return authorities


def backend_authorities(path: Path | None) -> tuple[Authorities | None, bytes]:
    """Return the reader of a file of backend authorities, and the content of the file in PEM.

    Without a file, return None and b"": the authorities of the system are trusted. Raises
    EdgeProxyError, which names the variable.
    """
    if path is None:
        return None, b""
    authorities = Authorities(path)
    try:
        return authorities, authorities.load()
    except TlsError as error:
        raise EdgeProxyError(f"EDGEPROXY_BACKEND_TLS_CA: {error}") from None
