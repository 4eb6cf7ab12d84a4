"""The certificates of listeners: read and checked at start, reloaded when their files change.

A check costs one `stat` per file. Files that turn bad are reported once per change; the
certificates in force stay. So a pair with only one new file waits for the other. A pair in force
stays in force when it expires.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from edgeproxy.engine.tls import Certificate, TlsError, TlsSettings
from edgeproxy.log import EventLog
from edgeproxy.tls import pem
from edgeproxy.tls.folder import Source, names_in, sources_in
from edgeproxy.tls.pem import Pair, shown
from edgeproxy.tls.self_signed import ADDRESSES, NAMES, self_signed
from edgeproxy.tls.settings import TlsListenSettings

SETTLED_SECS = 1.0
"""A file changed more recently than this may change again with the same time stamp."""

log = EventLog("tls")


class _Stamp(NamedTuple):
    """Changes whenever a file is replaced, edited or made readable. Links are followed."""

    path: Path
    changed_ns: int = 0
    written_ns: int = 0
    size: int = 0
    inode: int = 0
    device: int = 0


class _Snapshot(NamedTuple):
    """The stamps of all files, and whether any later change will alter them."""

    stamps: tuple[_Stamp, ...]
    is_settled: bool


class _Read(NamedTuple):
    """The content of the files: `pairs` by their hashes, and the earliest expiry."""

    settings: TlsSettings
    pairs: dict[bytes, Pair]
    expires_at: float


class Certificates:
    """Reads the TLS settings of listeners from files.

    Call `load` first. `load` and `reload` may run in any thread, one call at a time.

    Attributes:
        errors: Number of changes that left the files unusable.
        expires_at: When the first of the certificates in force expires, in Unix seconds.
    """

    def __init__(self, settings: TlsListenSettings) -> None:
        self.errors = 0
        self.expires_at = 0.0
        self._settings = settings
        self._in_force: _Read | None = None
        self._own: Pair | None = None
        self._seen: tuple[_Stamp, ...] | None = None
        self._reported: tuple[tuple[_Stamp, ...], str] | None = None

    def load(self) -> TlsSettings:
        """Read the files and return the settings. Raises TlsError."""
        snapshot = self._snapshot()
        return self._use(self._read({}), snapshot)

    def reload(self) -> TlsSettings | None:
        """Return the settings if the files changed and are good, else None. Never raises."""
        before = self._in_force
        assert before is not None
        snapshot = self._snapshot()
        if snapshot.stamps == self._seen:
            return None
        try:
            read = self._read(before.pairs)
        except TlsError as error:
            self._seen = None  # the fault may pass although no file changes: try again next time
            if self._reported != (snapshot.stamps, str(error)):
                self._reported = snapshot.stamps, str(error)
                self.errors += 1
                log.warning("certificates_bad", reason=error)
            return None
        settings = self._use(read, snapshot)
        return settings if settings != before.settings else None

    def _use(self, read: _Read, snapshot: _Snapshot) -> TlsSettings:
        is_new = (
            self._in_force is None
            or self._reported is not None
            or self._in_force.settings != read.settings
        )
        self._seen = snapshot.stamps if snapshot.is_settled else None
        self._in_force, self._reported, self.expires_at = read, None, read.expires_at
        if is_new:
            certificates = read.settings.certificates
            log.info(
                "certificates",
                count=len(certificates),
                names=sum(len(certificate.names) for certificate in certificates),
                expires=pem.moment(read.expires_at),
            )
        return read.settings

    def _read(self, known: dict[bytes, Pair]) -> _Read:
        """Read all files. Pairs in `known` are not checked again. Raises TlsError."""
        now = time.time()
        pairs: dict[bytes, Pair] = {}
        for source in self._sources():
            chain = pem.read(source.chain)
            key = chain if source.key == source.chain else pem.read(source.key)
            digest = sha256(chain).digest() + sha256(key).digest()
            pairs[digest] = known.get(digest) or pem.pair(source.chain, chain, source.key, key, now)
        if not pairs:
            pairs[b""] = self._self_signed(now)
        ca = self._settings.client_ca
        settings = TlsSettings(
            tuple(_without_shared_names(pairs.values())),
            self._settings.alpn,
            b"" if ca is None else pem.authorities(ca, pem.read(ca)),
        )
        return _Read(settings, pairs, min(pair.expires_at for pair in pairs.values()))

    def _sources(self) -> Iterator[Source]:
        """Yield the files of each pair, EDGEPROXY_TLS_CERT first. Raises TlsError."""
        chain, key, folder = self._settings.cert, self._settings.key, self._settings.cert_dir
        if chain is not None and key is not None:
            yield Source(chain, key)
        elif chain is not None or key is not None:
            present, missing = "EDGEPROXY_TLS_CERT", "EDGEPROXY_TLS_KEY"
            if chain is None:
                present, missing = missing, present
            raise TlsError(
                f"{present} is set and {missing} is not; set both, or none of them for the "
                "certificates of EDGEPROXY_TLS_CERT_DIR or a self-signed one"
            )
        if folder is not None:
            sources = sources_in(folder)
            if not sources and chain is None:
                raise TlsError(
                    f"{shown(folder)}: holds no certificates; put pairs of NAME.crt and NAME.key "
                    "there, or both in NAME.pem"
                )
            yield from sources

    def _self_signed(self, now: float) -> Pair:
        if self._own is None:
            self._own = Pair(*self_signed(now))
            log.warning(
                "certificate_self_signed",
                names=",".join((*NAMES, *ADDRESSES)),
                hint="set EDGEPROXY_TLS_CERT and EDGEPROXY_TLS_KEY",
            )
        return self._own

    def _snapshot(self) -> _Snapshot:
        now = time.time()
        settings = self._settings
        folder = settings.cert_dir
        configured = (settings.cert, settings.key, settings.client_ca, folder)
        paths = [path for path in configured if path is not None]
        if folder is not None:
            try:
                paths += (folder / name for name in sorted(names_in(folder)))
            except (OSError, ValueError):
                pass  # the directory cannot be read: its own stamp shows that
        stamps = tuple(map(_stamp, paths))
        newest = max((stamp.changed_ns for stamp in stamps), default=0) / 1e9
        return _Snapshot(stamps, newest + SETTLED_SECS < now)


def _without_shared_names(pairs: Iterable[Pair]) -> Iterator[Certificate]:
    """Yield the certificates. A name that several of them have stays with the first."""
    taken: set[str] = set()
    for certificate, _ in pairs:
        names = tuple(name for name in certificate.names if name not in taken)
        taken.update(names)
        yield replace(certificate, names=names)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return _Stamp(path)
    return _Stamp(
        path,
        status.st_ctime_ns,
        status.st_mtime_ns,
        status.st_size,
        status.st_ino,
        status.st_dev,
    )
