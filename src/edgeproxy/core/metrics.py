"""Counters of one proxy process.

Plain integers that the gate thread adds to; anybody may read them. They only ever grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict


class Metrics:
    """What happened since the process started.

    Attributes:
        accepted: Clients that were given a backend.
        accepted_by_app: The same by what they connected to; "" is all apps as one pool.
        refused_by_app: Clients that were turned away, by what they connected to and reason.
        failovers: Dial attempts that were given to another backend.
        refused: Clients that were turned away, by reason.
        closed: Sessions that ended, by reason.
        dial_failures: Failed dial attempts, by reason.
        bytes_in: Bytes carried from clients to backends by ended sessions.
        bytes_out: Bytes carried from backends to clients by ended sessions.
        pool_hits: Clients that were given a connection that waited for them.
        pool_misses: Clients for whom none waited.
        pool_dropped: Connections that waited for nobody.
        rows_skipped: Rows of the routing database that could not be used, ever read.
        reload_errors: Times the routing database could not be read.
        database_up: Whether the routing database could be read when it was last looked at.
        leases: Backends that are registered now.
        leases_expired: Leases of registered backends that expired.
        leases_held_back: Times that expiry began to be held back.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.accepted_by_app: Counter[str] = Counter()
        self.refused_by_app: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.failovers = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.dial_failures: Counter[str] = Counter()
        self.bytes_in = 0
        self.bytes_out = 0
        self.pool_hits = 0
        self.pool_misses = 0
        self.pool_dropped = 0
        self.rows_skipped = 0
        self.reload_errors = 0
        self.database_up = False
        self.leases = 0
        self.leases_expired = 0
        self.leases_held_back = 0
