"""Decides where the control socket is, for the proxy that serves it and for those who ask it.

A setting names its path, or `off`. Without one it is `control` in a folder of its own: in
/run/edgeproxy if this user may write there or make that, else in XDG_RUNTIME_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

OFF = "off"
VARIABLE = "EDGEPROXY_CONTROL_SOCKET"
SYSTEM_FOLDER = Path("/run/edgeproxy")
NAME = "control"


def default_paths(environ: Mapping[str, str], system: Path = SYSTEM_FOLDER) -> tuple[Path, ...]:
    """Return where a socket may be that no setting names, the preferred path first."""
    folders = [system]
    if os.path.isabs(own := environ.get("XDG_RUNTIME_DIR", "")):
        folders.append(Path(own) / system.name)
    return tuple(folder / NAME for folder in folders)


def writable_default(environ: Mapping[str, str], system: Path = SYSTEM_FOLDER) -> Path | None:
    """Return the first default path in whose folder this user may make a socket, or None."""
    for path in default_paths(environ, system):
        try:
            make_folder(path)
        except OSError:
            continue
        if os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
            return path
    return None


def make_folder(path: Path) -> None:
    """Make the folder of a socket, but none above it: a wrong path is an error. Raises OSError."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
