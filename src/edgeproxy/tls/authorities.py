"""The authorities that sign the certificates of backends: read at start, reloaded on change.

A file that turns bad is reported once; the authorities read before stay in force.
"""

from __future__ import annotations

from pathlib import Path

from edgeproxy.engine.tls import TlsError
from edgeproxy.log import EventLog
from edgeproxy.tls import pem

log = EventLog("tls")


class Authorities:
    """Reads the authorities from a PEM file.

    Call `load` first. `load` and `reload` may run in any thread, one call at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = b""
        self._told = ""

    def load(self) -> bytes:
        """Return the certificates in the file, in PEM. Raises TlsError."""
        written = pem.read(self._path)
        found = pem.authorities(self._path, written)
        self._seen = written
        return found

    def reload(self) -> bytes | None:
        """Return the certificates if the file changed and is good, else None. Never raises."""
        before = self._seen
        try:
            if pem.read(self._path) == before:
                self._told = ""
                return None
            found = self.load()
        except TlsError as error:
            if self._told != str(error):
                self._told = str(error)
                log.warning("authorities_bad", reason=error)
            return None
        self._told = ""
        log.info("authorities", count=found.count(b"-----BEGIN "))
        return found
