"""Begins a connection to a backend, and names what went wrong."""

from __future__ import annotations

import errno
import socket

from edgeproxy.engine.contract import DialFailure
from edgeproxy.engine.sockets import prepare

_FAILURES = {
    errno.ECONNREFUSED: DialFailure.REFUSED,
    errno.ECONNRESET: DialFailure.RESET,
    errno.ETIMEDOUT: DialFailure.TIMEOUT,
    errno.EHOSTUNREACH: DialFailure.UNREACHABLE,
    errno.ENETUNREACH: DialFailure.UNREACHABLE,
    errno.EACCES: DialFailure.UNREACHABLE,
    errno.EPERM: DialFailure.UNREACHABLE,
    errno.EMFILE: DialFailure.LOCAL,
    errno.ENFILE: DialFailure.LOCAL,
    errno.EPROTO: DialFailure.HANDSHAKE,
    errno.EADDRNOTAVAIL: DialFailure.NO_PORT,
    errno.EAGAIN: DialFailure.LOCAL,
    errno.ENOBUFS: DialFailure.LOCAL,
    errno.ENOMEM: DialFailure.LOCAL,
    errno.ENOSPC: DialFailure.LOCAL,  # too many descriptors are being watched
}
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def failure(code: int) -> DialFailure:
    """Return what an error number of a dial means."""
    return _FAILURES.get(code, DialFailure.ERROR)


class DialError(Exception):
    """The dial has failed; nothing is left open.

    Attributes:
        reason: Why.
        may_wait: Only a descriptor is missing: the same dial may work a little later.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.reason = failure(code)
        self.may_wait = code in _NO_DESCRIPTORS


def begin(address: tuple[str, int], ceiling: int) -> socket.socket:
    """Return a socket that is connecting to `address`. Raises DialError.

    Its number is below `ceiling`, see `engine.descriptors`.
    """
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        backend = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise DialError(error.errno or 0) from None
    except (IndexError, TypeError):  # no address at all
        raise DialError(errno.EINVAL) from None
    if backend.fileno() >= ceiling:
        backend.close()
        raise DialError(errno.EMFILE)
    backend.setblocking(False)
    prepare(backend)
    try:
        code = backend.connect_ex(address)
    except (OverflowError, ValueError, TypeError):  # no address at all
        code = errno.EINVAL
    if code not in (0, errno.EINPROGRESS):
        backend.close()
        raise DialError(code)
    return backend


def check(backend: socket.socket) -> None:
    """Raise DialError if this connecting socket has failed."""
    code = backend.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise DialError(code)
