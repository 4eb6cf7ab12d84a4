"""Starts a successor of this process; hands it the listening sockets, and who is drained.

The sockets are the same for both, so that nobody who connects meanwhile is refused or lost: the
successor accepts as soon as it is ready, and only then does this process stop to. If it does not
get ready, nothing has changed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from edgeproxy.errors import EdgeProxyError

HANDED = "_EDGEPROXY_HANDED"
"""Names and descriptors of what is handed, such as `default:7,metrics:8`."""
DRAINED = "_EDGEPROXY_DRAINED"
"""The ids of the backends that are being drained, as a list in JSON."""
READY = "_EDGEPROXY_READY"
"""The descriptor on which the successor says that it is ready."""
READY_SECS = 30.0
ENDING_SECS = 5.0
NOT_HANDED = {"WATCHDOG_PID"}
"""Variables that speak of this process alone. Without the first, systemd's wish for signs of
life is the successor's, which takes this process's place there."""


def handed_sockets() -> dict[str, socket.socket]:
    """Return what a predecessor has handed to this process, by name. Only once."""
    text = os.environ.pop(HANDED, "")
    pairs = (each.rpartition(":") for each in text.split(",") if each)
    return {name: socket.socket(fileno=int(fd)) for name, _, fd in pairs}


def handed_drains() -> list[str]:
    """Return the backends that a predecessor was draining, by id. Only once."""
    return [str(each) for each in json.loads(os.environ.pop(DRAINED, "[]"))]


def has_predecessor() -> bool:
    """Return whether this process is to take over from another one that still serves."""
    return READY in os.environ


def tell_predecessor() -> None:
    """Say to whoever started this process as its successor that clients are accepted."""
    fd = os.environ.pop(READY, "")
    if fd:
        os.write(int(fd), str(os.getpid()).encode())
        os.close(int(fd))


async def start_successor(sockets: Mapping[str, socket.socket], drained: Iterable[str] = ()) -> int:
    """Start another process like this one with these sockets; return its process id.

    It does not give clients to the backends that are `drained`, either.

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
    environ = {name: text for name, text in os.environ.items() if name not in NOT_HANDED}
    environ[HANDED] = ",".join(f"{name}:{each.fileno()}" for name, each in sockets.items())
    environ[DRAINED] = json.dumps(list(drained))
    try:
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *sys.orig_argv[1:]],
                env={**environ, READY: str(writing)},
                pass_fds=[writing, *(each.fileno() for each in sockets.values())],
            )
        except OSError as error:
            raise EdgeProxyError(f"the successor cannot be started: {error.strerror}") from None
        finally:
            os.close(writing)
        said = await asyncio.to_thread(_read_within, reading, READY_SECS)
        fault = "" if said else await asyncio.to_thread(_ended, process, said)
    except asyncio.CancelledError:
        process.kill()  # nobody waits for it any more
        raise
    finally:
        os.close(reading)
    if fault:
        raise EdgeProxyError(f"the successor {fault}; its log says why")
    process.returncode = 0  # it is nobody's child from now on; do not wait for it
    return process.pid


def _read_within(fd: int, secs: float) -> bytes | None:
    """Return what is written on a pipe, nothing if that ends, None if it takes too long."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return os.read(fd, 64) if poll.poll(secs * 1000) else None


def _ended(process: subprocess.Popen[bytes], said: bytes | None) -> str:
    """See that a successor that is not ready has ended. Return what happened, in words."""
    if said is not None:  # it has let go of its end of the pipe, so it is ending
        with suppress(subprocess.TimeoutExpired):
            return f"ended before it was ready, with exit code {process.wait(ENDING_SECS)}"
    process.kill()
    process.wait()
    return f"did not get ready within {READY_SECS:g} s and was ended"
