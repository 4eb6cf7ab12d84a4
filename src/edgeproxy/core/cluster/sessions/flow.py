"""How much of the frames between two nodes waits where: the two ends of one direction.

A sender may be ahead of what the receiver has dealt with by a window. The receiver tells how far it
is by a *credit*, all bytes since the beginning, a quarter of the window at a time. A frame is sent
as a whole or not at all, so that a credit never waits behind half a frame of the other direction.
A frame that is not larger than three quarters of the window never waits for ever.

A receiver that stops reading costs the sender at most the limit of its queue, a sender that ignores
the credit is found out at once.
"""

from __future__ import annotations

from collections import deque


class Outflow:
    """The frames that wait to be sent to a peer.

    Attributes:
        waiting_bytes: What the peer has not dealt with yet, sent or not.
    """

    __slots__ = ("_credited", "_frames", "_limit_bytes", "_sent", "_window_bytes", "waiting_bytes")

    def __init__(self, limit_bytes: int, window_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._window_bytes = window_bytes
        self._frames: deque[bytes] = deque()
        self._sent = 0
        self._credited = 0
        self.waiting_bytes = 0

    def offer(self, frame: bytes) -> bool:
        """Queue a frame; False if there is no room for it."""
        assert 4 * len(frame) <= 3 * self._window_bytes
        if self.waiting_bytes + len(frame) > self._limit_bytes:
            return False
        self._frames.append(frame)
        self.waiting_bytes += len(frame)
        return True

    def take(self) -> bytes | None:
        """Return the next frame that may be sent now."""
        ahead = self._sent - self._credited
        if not self._frames or ahead + len(self._frames[0]) > self._window_bytes:
            return None
        frame = self._frames.popleft()
        self._sent += len(frame)
        return frame

    def credit(self, dealt_with_bytes: int) -> bool:
        """Note how far the peer is; False if that cannot be true."""
        if not self._credited <= dealt_with_bytes <= self._sent:
            return False
        self.waiting_bytes -= dealt_with_bytes - self._credited
        self._credited = dealt_with_bytes
        return True


class Inflow:
    """The frames of a peer that wait to be dealt with.

    Attributes:
        waiting_bytes: How many bytes they have.
    """

    __slots__ = ("_credited", "_dealt_with", "_frames", "_window_bytes", "waiting_bytes")

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._frames: deque[bytes] = deque()
        self._dealt_with = 0
        self._credited = 0
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: bytes) -> bool:
        """Queue a frame; False if the peer was not allowed to send it."""
        ahead = self._dealt_with + self.waiting_bytes - self._credited
        if ahead + len(frame) > self._window_bytes:
            return False
        self._frames.append(frame)
        self.waiting_bytes += len(frame)
        return True

    def take(self) -> bytes:
        """Return the next frame, which counts as dealt with."""
        frame = self._frames.popleft()
        self.waiting_bytes -= len(frame)
        self._dealt_with += len(frame)
        return frame

    def due_credit(self) -> int | None:
        """Return the credit that the peer has to be told; None while it can well go on without."""
        if self._dealt_with - self._credited < self._window_bytes // 4:
            return None
        self._credited = self._dealt_with
        return self._credited
