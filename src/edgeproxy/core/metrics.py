"""Counters of one proxy process.

They are plain integers. The gate thread adds to them, and any thread may read them. Counters only
grow; `database_up` and `leases` are the current state.
"""

from __future__ import annotations

from collections import Counter, defaultdict


class Metrics:
    """Counts since the process started.

    Attributes:
        accepted: Clients that were given a backend.
        accepted_by_app: The same by app; "" is all apps as one pool.
        refused_by_app: Refused clients, by app and reason.
        failovers: Dials repeated on another backend after a failure.
        refused: Refused clients, by reason.
        closed: Sessions that ended, by reason.
        dial_failures: Failed dial attempts, by reason.
        bytes_in: Bytes carried from clients to backends by ended sessions.
        bytes_out: Bytes carried from backends to clients by ended sessions.
        pool_hits: Clients given an idle connection from the pool.
        pool_misses: Clients for which the pool had no idle connection.
        pool_dropped: Idle connections closed unused.
        rows_skipped: Rows of the routing database that could not be used.
        reload_errors: Failed reads of the routing database.
        database_up: Whether the last read of the routing database succeeded.
        leases: Backends that are registered now.
        leases_expired: Leases of registered backends that expired.
        leases_held_back: Times the expiry of leases was suspended.
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
