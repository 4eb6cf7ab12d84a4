"""Counters of one proxy process.

They are integers, and histograms. The gate thread adds to them, and any thread may read them.
Counters only grow; `database_up` and `leases` are the current state.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

SESSION_BUCKETS_SECS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0)
"""Upper bounds of session lengths: from one request to a working day."""
FIRST_BYTE_BUCKETS_SECS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds of the time to the first byte: from a backend nearby to one that thinks."""
MAX_DECISION_KINDS = 2048
"""How many kinds of decisions are counted: regions are names that others choose."""
OTHER = "other"
UNKNOWN = "unknown"


class Histogram:
    """Counts values by fixed bounds.

    Attributes:
        bounds: Upper bounds, the smallest first.
        counts: The number of values in each bucket, and beyond the last bound.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


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
        decisions: Backends given to clients, by how they were chosen, the region of the client
            (`UNKNOWN` if it has none, or was not looked up) and that of the backend.
        session_secs: How long sessions were open, from accept.
        first_byte_secs: When, from accept, their clients got the first byte of a backend.
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
        self.decisions: dict[tuple[str, str, str], int] = {}
        self.session_secs = Histogram(SESSION_BUCKETS_SECS)
        self.first_byte_secs = Histogram(FIRST_BYTE_BUCKETS_SECS)
        self.pool_hits = 0
        self.pool_misses = 0
        self.pool_dropped = 0
        self.rows_skipped = 0
        self.reload_errors = 0
        self.database_up = False
        self.leases = 0
        self.leases_expired = 0
        self.leases_held_back = 0

    def first_decided(self, how: str, client_region: str, backend_region: str) -> None:
        """Count the first decision of its kind, and with `OTHER` regions what is too many."""
        kind = (how, client_region, backend_region)
        if len(self.decisions) >= MAX_DECISION_KINDS:
            kind = (how, OTHER, OTHER)
        self.decisions[kind] = self.decisions.get(kind, 0) + 1
