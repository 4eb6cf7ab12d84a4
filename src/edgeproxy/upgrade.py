"""Starts a successor of this process and hands it the listening sockets.

The sockets are the same for both, so that nobody who connects meanwhile is refused or lost: the
successor accepts as soon as it is ready, and only then does this process stop to. If it does not
get ready, nothing has changed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping

from edgeproxy.errors import EdgeProxyError

HANDED = "_EDGEPROXY_HANDED"
"""Names and descriptors of what is handed, such as `default:7,metrics:8`."""
READY = "_EDGEPROXY_READY"
"""The descriptor on which the successor says that it is ready."""
READY_SECS = 30.0


def handed_sockets() -> dict[str, socket.socket]:
    """Return what a predecessor has handed to this process, by name. Only once."""
    text = os.environ.pop(HANDED, "")
    pairs = (each.rpartition(":") for each in text.split(",") if each)
    return {name: socket.socket(fileno=int(fd)) for name, _, fd in pairs}


def tell_predecessor() -> None:
    """Say to whoever started this process as its successor that clients are accepted."""
    fd = os.environ.pop(READY, "")
    if fd:
        os.write(int(fd), str(os.getpid()).encode())
        os.close(int(fd))


async def start_successor(sockets: Mapping[str, socket.socket]) -> int:
    """Start another process like this one with these sockets; return its process id.

    Returns when it accepts clients. Raises EdgeProxyError if it does not come to that; it is
    ended then.
    """
    import asyncio

    if os.getpid() == 1:
        raise EdgeProxyError(
            "process 1 cannot be succeeded: when it ends, its container does; start another "
            "container instead"
        )
    reading, writing = os.pipe2(os.O_CLOEXEC)
    handed = ",".join(f"{name}:{each.fileno()}" for name, each in sockets.items())
    try:
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, HANDED: handed, READY: str(writing)},
                pass_fds=[writing, *(each.fileno() for each in sockets.values())],
            )
        except OSError as error:
            raise EdgeProxyError(f"the successor cannot be started: {error.strerror}") from None
        finally:
            os.close(writing)
        said = await asyncio.to_thread(_read_within, reading, READY_SECS)
    except asyncio.CancelledError:
        process.kill()  # nobody waits for it any more
        raise
    finally:
        os.close(reading)
    if not said:
        process.kill()
        code = await asyncio.to_thread(process.wait)
        raise EdgeProxyError(
            f"the successor did not get ready within {READY_SECS:g} s (exit code {code}); its "
            "log says why"
        )
    process.returncode = 0  # it is nobody's child from now on; do not wait for it
    return process.pid


def _read_within(fd: int, secs: float) -> bytes:
    """Return what is written on a pipe, or nothing if that ends or takes too long."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return os.read(fd, 64) if poll.poll(secs * 1000) else b""
