"""Opens listening sockets, or takes over those that a predecessor or systemd has opened.

Invariants:
* A socket from systemd has precedence over one from a predecessor, and that over a new one.
* The file of a Unix socket is removed only while it is the one that was opened or taken over:
  never one of another process, and never one that systemd made.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edgeproxy.engine.sockets import open_listener, open_unix_listener, prepare
from edgeproxy.errors import EdgeProxyError
from edgeproxy.listeners.spec import UnixAddress
from edgeproxy.log import EventLog
from edgeproxy.values import ListenAddress

log = EventLog("listeners")

SOLE_LISTENER = "default"
"""The name under which a predecessor that can have only one listener hands it over."""

FIRST_FREE_PORT = 1024
"""The first port that every user may listen on."""

Address = ListenAddress | UnixAddress


class OpenSocket(NamedTuple):
    """A listening socket.

    Attributes:
        address: Its address as configured; the port may be 0.
        listening: The socket.
        file: Device and inode of the file that belongs to it; None without such a file.
    """

    address: Address
    listening: socket.socket
    file: tuple[int, int] | None = None

    def bound_address(self) -> Address:
        """Return its address with the port that it is bound to."""
        if isinstance(self.address, UnixAddress):
            return self.address
        return ListenAddress(self.address.host, self.listening.getsockname()[1])

    def close(self, *, keeps_file: bool = False) -> None:
        """Close it, and remove its file unless that belongs to another socket now."""
        self.listening.close()
        if self.file is None or keeps_file or _file_of(self.address) != self.file:
            return
        assert isinstance(self.address, UnixAddress)
        with suppress(OSError):
            Path(self.address.path).unlink()


def open_socket(address: Address) -> OpenSocket:
    """Return a new listening socket. Raises EdgeProxyError, which names the variables."""
    try:
        if isinstance(address, UnixAddress):
            listening = open_unix_listener(Path(address.path))
        else:
            listening = open_listener(address.host, address.port)
    except OSError as error:
        variables = (
            "EDGEPROXY_LISTEN_ADDR (--listen), EDGEPROXY_TLS_LISTEN_ADDR or EDGEPROXY_LISTENERS"
        )
        raise cannot_listen(address, error, variables) from None
    return OpenSocket(address, listening, _file_of(address))


def cannot_listen(address: Address, error: OSError, variables: str) -> EdgeProxyError:
    """Return the error for an address that cannot be used; `variables` choose another one."""
    hint = ""
    if isinstance(error, PermissionError) and isinstance(address, ListenAddress):
        hint = (
            "; a port below 1024 needs the capability CAP_NET_BIND_SERVICE, in a unit of systemd "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE: grant that,"
            if address.port < FIRST_FREE_PORT
            else ""
        )
    elif error.errno == errno.EADDRINUSE and isinstance(address, ListenAddress):
        hint = "; `ss -ltnp` shows who has it: stop that,"
    or_choose = " or choose" if hint else "; choose"
    return EdgeProxyError(
        f"cannot listen on {address}: {error.strerror}{hint}{or_choose} another address with "
        f"{variables}"
    )


def open_all(
    addresses: Mapping[str, Address],
    inherited: Mapping[str, socket.socket],
    activated: Iterable[socket.socket],
) -> dict[str, OpenSocket]:
    """Return an open socket for each of these addresses, by name.

    `inherited` are the sockets of a predecessor by name, `activated` those of systemd. The first
    address also takes a socket of another address, if there is none of its own. Sockets that are
    left over are closed. Raises EdgeProxyError, and closes what it has opened.
    """
    inherited_left = dict(inherited)
    activated_left = {_name_of(each): each for each in activated}
    first = next(iter(addresses))
    if first not in inherited_left and first not in activated_left:
        if SOLE_LISTENER in inherited_left:
            inherited_left[first] = inherited_left.pop(SOLE_LISTENER)
        else:
            spare = next((name for name in activated_left if name not in addresses), None)
            if spare is not None:
                activated_left[first] = activated_left.pop(spare)
    opened: dict[str, OpenSocket] = {}
    try:
        for name, address in addresses.items():
            old = inherited_left.pop(name, None)
            if name in activated_left:
                opened[name] = OpenSocket(address, _prepared(activated_left.pop(name)))
            elif old is not None:
                opened[name] = OpenSocket(address, _prepared(old), _file_of(address))
            else:
                opened[name] = open_socket(address)
    except EdgeProxyError:
        for each in opened.values():
            each.close(keeps_file=bool(inherited))
        raise
    for name in activated_left:
        log.warning("socket_unused", listen=name, hint="no listener has this address")
    for listening in (*inherited_left.values(), *activated_left.values()):
        listening.close()
    return opened


def _prepared(listening: socket.socket) -> socket.socket:
    """Return a socket that another process has opened, with the options that clients need."""
    listening.setblocking(False)
    if listening.family != socket.AF_UNIX:
        prepare(listening)
    return listening


def _name_of(listening: socket.socket) -> str:
    """Return the address of a socket in the form that is configured."""
    address = listening.getsockname()
    if isinstance(address, str):
        return str(UnixAddress(address))
    return str(ListenAddress(*address[:2]))


def _file_of(address: Address) -> tuple[int, int] | None:
    """Return device and inode of the file of a Unix socket; None if there is none."""
    if isinstance(address, UnixAddress):
        with suppress(OSError):
            status = Path(address.path).stat()
            return status.st_dev, status.st_ino
    return None
