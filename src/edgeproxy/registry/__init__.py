"""Backends that register themselves: requests become rows, leases are watched, silence expires.

Knows no HTTP: it raises errors of its own, which `api/fault.py` turns into statuses.
"""
