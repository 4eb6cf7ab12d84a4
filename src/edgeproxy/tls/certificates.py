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

LOG = EventLog("tls")


class _Stamp(NamedTuple):
    """Changes whenever a file is replaced, edited or made readable. Links are followed."""

    path: Path
    changed_ns: int = 0
    written_ns: int = 0
    size: int = 0
    inode: int = 0
    device: int = 0


class _Look(NamedTuple):
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
        self._told: tuple[tuple[_Stamp, ...], str] | None = None

    def load(self) -> TlsSettings:
        """Read the files and return the settings. Raises TlsError."""
        look = self._look()
        return self._use(self._read({}), look)

    def reload(self) -> TlsSettings | None:
        """Return the settings if the files changed and are good, else None. Never raises."""
        before = self._in_force
        assert before is not None
        look = self._look()
        if look.stamps == self._seen:
            return None
        try:
            read = self._read(before.pairs)
        except TlsError as error:
            self._seen = None  # the fault may pass although no file changes: try again next time
            if self._told != (look.stamps, str(error)):
                self._told = look.stamps, str(error)
                self.errors += 1
                LOG.warning("certificates_bad", reason=error)
            return None
        settings = self._use(read, look)
        return settings if settings != before.settings else None

    def _use(self, read: _Read, look: _Look) -> TlsSettings:
        is_news = (
            self._in_force is None
            or self._told is not None
            or self._in_force.settings != read.settings
        )
        self._seen = look.stamps if look.is_settled else None
        self._in_force, self._told, self.expires_at = read, None, read.expires_at
        if is_news:
            certificates = read.settings.certificates
            LOG.info(
                "certificates",
                count=len(certificates),
                names=sum(len(each.names) for each in certificates),
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
            tuple(_shared_out(pairs.values())),
            self._settings.alpn,
            b"" if ca is None else pem.authorities(ca, pem.read(ca)),
        )
        return _Read(settings, pairs, min(each.expires_at for each in pairs.values()))

    def _sources(self) -> Iterator[Source]:
        """Yield the files of each pair, that of EDGEPROXY_TLS_CERT first. Raises TlsError."""
        chain, key, folder = self._settings.cert, self._settings.key, self._settings.cert_dir
        if chain is not None and key is not None:
            yield Source(chain, key)
        elif chain is not None or key is not None:
            given, missing = "EDGEPROXY_TLS_CERT", "EDGEPROXY_TLS_KEY"
            if chain is None:
                given, missing = missing, given
            raise TlsError(
                f"{given} is set and {missing} is not; set both, or none of them for the "
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
            LOG.warning(
                "certificate_self_signed",
                names=",".join((*NAMES, *ADDRESSES)),
                hint="set EDGEPROXY_TLS_CERT and EDGEPROXY_TLS_KEY",
            )
        return self._own

    def _look(self) -> _Look:
        now = time.time()
        settings = self._settings
        folder = settings.cert_dir
        given = (settings.cert, settings.key, settings.client_ca, folder)
        paths = [path for path in given if path is not None]
        if folder is not None:
            try:
                paths += (folder / name for name in sorted(names_in(folder)))
            except (OSError, ValueError):
                pass  # the stamp of the directory shows this
        stamps = tuple(map(_stamp, paths))
        newest = max((each.changed_ns for each in stamps), default=0) / 1e9
        return _Look(stamps, newest + SETTLED_SECS < now)


def _shared_out(pairs: Iterable[Pair]) -> Iterator[Certificate]:
    """Yield the certificates. A name that several have stays with the first."""
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
