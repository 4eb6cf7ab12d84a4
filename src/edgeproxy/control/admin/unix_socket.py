"""Opens the control socket: only its owner may use it, and it replaces no other file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from edgeproxy.errors import EdgeProxyError


def open_socket(path: Path) -> socket.socket:
    """Return a listening socket at this path, which only its owner may use.

    A socket on which no process listens any more is replaced. Raises EdgeProxyError.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        umask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(umask)
        listening.listen(64)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise EdgeProxyError(
            f"EDGEPROXY_CONTROL_SOCKET={str(path)!r} cannot be created: {error.strerror or error}"
        ) from None
    return listening


def _remove_stale(path: Path) -> None:
    """Remove a socket on which no process listens. Raises OSError if the path is in use."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(17, "there is another file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(17, "another proxy listens there")
