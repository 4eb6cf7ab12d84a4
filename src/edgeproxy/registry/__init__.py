"""Backends that register themselves: requests become rows, and silent backends lose their lease.

`registry` checks a request, `writer` stores it and puts it in force, `lease_watch` ends leases,
`views` shows the result. The registry knows no HTTP: it raises the errors in `errors`, which
`api/fault.py` turns into statuses.
"""
