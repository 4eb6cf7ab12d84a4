"""What one backend has done since it is known: counts that only grow.

The gate thread adds, anybody may read. An addition is all that a connection pays.
"""

from __future__ import annotations

from bisect import bisect_left

RTT_BUCKETS_SECS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Upper bounds, from a neighbour on the local network to a handshake that was sent again."""


class BackendCounters:
    """The counts of one backend.

    Attributes:
        connections: Clients that were given it, and whom it answered.
        errors: Dials that failed, and connections it ended within a moment.
        bytes_in: Bytes carried from clients to it by ended sessions.
        bytes_out: Bytes carried from it to clients by ended sessions.
        rtt: How many dials that clients waited for took so long: a count for each
            bucket, and one beyond the last.
        rtt_secs: The sum of those times.
    """

    __slots__ = ("bytes_in", "bytes_out", "connections", "errors", "rtt", "rtt_secs")

    def __init__(self) -> None:
        self.connections = 0
        self.errors = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.rtt = [0] * (len(RTT_BUCKETS_SECS) + 1)
        self.rtt_secs = 0.0

    def answered(self, secs: float) -> None:
        """The backend has answered a dial after so long; 0 if nobody waited for that."""
        self.connections += 1
        if not secs:
            return
        self.rtt[bisect_left(RTT_BUCKETS_SECS, secs)] += 1
        self.rtt_secs += secs
