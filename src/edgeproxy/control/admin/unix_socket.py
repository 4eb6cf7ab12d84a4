"""Opens and removes the control socket: only its owner may use it.

It replaces no other file, and only the file that belongs to the socket is removed: whatever else
has come into its place stays.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
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


def file_of(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the socket at this path; None if there is no socket."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISSOCK(status.st_mode):
            return status.st_dev, status.st_ino
    return None


def remove(path: Path, file: tuple[int, int] | None) -> None:
    """Remove the socket at this path if it is still this `file_of`. Never raises."""
    if file is not None and file_of(path) == file:
        with suppress(OSError):
            path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove a socket on which no process listens. Raises OSError if the path is in use."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(17, "there is another file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full: who listens there hangs
    raise FileExistsError(17, "another proxy listens there")
