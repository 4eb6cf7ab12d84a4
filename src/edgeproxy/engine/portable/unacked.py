"""Since when a TCP peer owes an acknowledgement: how a vanished peer is found.

Linux has `TCP_USER_TIMEOUT` for this, but it also ends a connection whose peer is alive
and answers every probe of its closed window, only because it has paused reading. A
paused reader must not be cut, so the kernel's own counters are read now and then,
off the path of the bytes.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import termios

_TCP_INFO = struct.Struct("=8B13I")
"""The first 60 bytes of `struct tcp_info` in linux/tcp.h; they have never changed."""

_STATE, _PROBES, _UNACKED, _LAST_ACK_RECV_MS = 0, 3, 12, 20
_CLOSED = 7
"""TCP_CLOSE in linux/tcp_states.h: the peer has reset, or the kernel has given it up."""


def unacked_since(tcp: socket.socket, since: float, now: float) -> float:
    """Return since when the peer of `tcp` owes an answer, or 0.0 if it owes none.

    `since` is what the last check returned. Owed are sent bytes that are not acknowledged
    and window probes without an answer; any acknowledgement after `since` starts it anew.
    """
    fields = _info(tcp)
    if not fields or not (fields[_UNACKED] or fields[_PROBES]):
        return 0.0
    acknowledged_at = now - fields[_LAST_ACK_RECV_MS] / 1000
    return since if since and acknowledged_at <= since else now


def is_gone(tcp: socket.socket) -> bool:
    """Return whether nothing can be delivered any more: the peer has reset."""
    fields = _info(tcp)
    return bool(fields) and fields[_STATE] == _CLOSED


def _info(tcp: socket.socket) -> tuple[int, ...]:
    try:
        raw = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        return _TCP_INFO.unpack(raw)
    except (OSError, struct.error):
        return ()


def undelivered_bytes(tcp: socket.socket) -> int:
    """Return how many bytes the kernel holds that the peer has not acknowledged."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, count)
    except (OSError, ValueError):
        return 0
    return count[0]
