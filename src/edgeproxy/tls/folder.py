"""Finds the pairs of certificate and key in a directory, and their order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from edgeproxy.engine.tls import TlsError
from edgeproxy.tls.pem import shown

ENDINGS = (".crt", ".pem", ".key")
DEFAULT_STEM = "default"
"""The pair with this name serves clients that send no server name."""


class Source(NamedTuple):
    """The files of a pair; both may be the same file."""

    chain: Path
    key: Path


def names_in(folder: Path) -> list[str]:
    """Return the names of certificate and key files. Hidden files are skipped as unfinished."""
    return [name for name in os.listdir(folder) if name.endswith(ENDINGS) and name[0] != "."]


def sources_in(folder: Path) -> list[Source]:
    """Return the files of each pair in a directory, the default pair first. Raises TlsError."""
    try:
        names = names_in(folder)
    except (OSError, ValueError) as error:
        raise TlsError(
            f"{shown(folder)}: cannot be read: {getattr(error, 'strerror', error)}; correct "
            "EDGEPROXY_TLS_CERT_DIR, or let the user that edgeproxy runs as read that directory"
        ) from error
    by_stem: dict[str, dict[str, Path]] = {}
    for name in names:
        stem, _, ending = name.rpartition(".")
        by_stem.setdefault(stem, {})[ending] = folder / name
    sources = []
    for stem in sorted(by_stem, key=lambda stem: (stem != DEFAULT_STEM, stem)):
        files = by_stem[stem]
        chains = [files[ending] for ending in ("crt", "pem") if ending in files]
        if not chains:
            raise TlsError(
                f"{shown(files['key'])}: there is no certificate of that name; put one with the "
                "ending .crt beside the key, or remove the key"
            )
        if len(chains) > 1:
            raise TlsError(
                f"{shown(chains[0])}: there is a .pem of that name too; keep one of them"
            )
        sources.append(Source(chains[0], files.get("key", chains[0])))
    return sources
