"""Makes the control socket: for its owner alone, in nobody else's place."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from edgeproxy.errors import EdgeProxyError


def open_socket(path: Path) -> socket.socket:
    """Return a listening socket at this path, for its owner alone.

    One that nobody listens on any more is replaced. Raises EdgeProxyError.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(64)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise EdgeProxyError(
            f"EDGEPROXY_CONTROL_SOCKET={str(path)!r} cannot be made: {error.strerror or error}"
        ) from None
    return listening


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises OSError if somebody does."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(17, "there is something else")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(17, "another proxy listens there")
