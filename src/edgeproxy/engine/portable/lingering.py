"""Lets a client read what it was sent before it sees that the backend has reset.

A reset throws away what the sending socket still holds. So the client of a session whose
backend has reset is kept, on its own, until the kernel has delivered everything, the client
has gone or `PATIENCE_SECS` have passed; then it is reset. Its session has ended long before.
"""

from __future__ import annotations

import socket

from edgeproxy.engine.portable.relay import reset_on_close
from edgeproxy.engine.portable.unacked import is_gone, undelivered_bytes

PATIENCE_SECS = 10.0


class Lingering:
    """The sockets that are to be reset once what they hold is delivered."""

    def __init__(self) -> None:
        self._deadlines: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, leaving: socket.socket, now: float) -> bool:
        """Keep this socket until everything is delivered; return False if it already is."""
        if not undelivered_bytes(leaving):
            return False
        self._deadlines[leaving] = now + PATIENCE_SECS
        return True

    def excuse(self, secs: float) -> None:
        """Keep all of them longer by the seconds in which this process stood still."""
        for leaving in self._deadlines:
            self._deadlines[leaving] += secs

    def sweep(self, now: float) -> None:
        """Reset clients that have taken everything, have gone, or have run out of time."""
        for leaving, deadline in list(self._deadlines.items()):
            if deadline <= now or not undelivered_bytes(leaving) or is_gone(leaving):
                del self._deadlines[leaving]
                reset_on_close(leaving)
                leaving.close()

    def close(self) -> None:
        """Reset all of them now."""
        self.sweep(float("inf"))
