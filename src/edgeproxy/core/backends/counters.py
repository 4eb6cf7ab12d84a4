"""Counters of one backend, which only grow, and the last thing that went wrong with it.

The gate thread adds; any thread may read. A connection costs a few integer additions.
"""

from __future__ import annotations

from bisect import bisect_left

RTT_BUCKETS_SECS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Upper bounds of the dial-time histogram: from the local network to a retransmitted handshake."""


class BackendCounters:
    """The counters of one backend.

    Attributes:
        connections: Sessions that the backend has accepted.
        errors: Dials that failed, and connections that the backend closed early.
        last_error: The last thing that went wrong, an error or a dial that failed on this host: its
            kind, and what is known beside; "" before the first.
        last_error_at: When that was (monotonic seconds).
        bytes_in: Bytes carried from clients to it by ended sessions.
        bytes_out: Bytes carried from it to clients by ended sessions.
        rtt: Histogram of dial times: a count for each bucket, and one beyond the last. Pooled
            connections, which no client waited for, are not in it.
        rtt_secs: The sum of those times.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connections",
        "errors",
        "last_error",
        "last_error_at",
        "rtt",
        "rtt_secs",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.errors = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.rtt = [0] * (len(RTT_BUCKETS_SECS) + 1)
        self.rtt_secs = 0.0

    def note_error(self, why: str, now: float) -> None:
        """Take note of what went wrong."""
        self.last_error, self.last_error_at = why, now

    def closed_early(self, now: float) -> None:
        """The backend has closed a connection early, which counts as an error."""
        self.errors += 1
        self.note_error("closed early", now)

    def answered(self, secs: float) -> None:
        """The backend has accepted a session; `secs` is the dial time, 0 if it was pooled."""
        self.connections += 1
        if not secs:
            return
        self.rtt[bisect_left(RTT_BUCKETS_SECS, secs)] += 1
        self.rtt_secs += secs
