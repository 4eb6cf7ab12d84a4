"""What a backend is, and how it does: rows, live state, health, breaker, ejection, leases.

A `Backend` is one immutable row. Its `LiveState` outlives tables and belongs to its id: slots,
counters, circuit, drain. Each module has one rule that changes that state; none of them chooses.
"""
