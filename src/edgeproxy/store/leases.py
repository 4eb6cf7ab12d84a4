"""The table `edgeproxy_leases`, in the SQL that files and servers have in common.

A row says that a backend is, or was, registered with one POP, its home. `ended_at` is NULL while
that lease is live, else the time at which it expired, in Unix seconds. A backend whose leases have
all ended is withheld: who reads the database leaves it out as if it had no row.

The first registration makes the table, and a trigger that deletes the leases of a row that is
deleted. Without the trigger `backends` was made anew, and no lease counts. A table of an earlier
version has no `ended_at`: no lease has ended there. The next write changes it.
"""

from __future__ import annotations

from edgeproxy.core.cluster.rows import LEASES

COLUMNS = ("id", "home", "ended_at")
"""Those that say who hears a backend. Files have the country besides."""

KEY = ("id", "home")

WITHHELD = f"""SELECT id, CAST(max(ended_at) AS BIGINT) FROM {LEASES}
    WHERE id IN (SELECT id FROM backends) GROUP BY id HAVING count(ended_at) = count(*)"""  # noqa: S608
COUNT = f"SELECT count(DISTINCT id) FROM {LEASES} WHERE ended_at IS NULL"  # noqa: S608
"""How many backends have a live lease."""

_OLD = f"(SELECT id, home, NULL AS ended_at FROM {LEASES})"  # noqa: S608


def here_and_elsewhere(home: str, *, has_ends: bool) -> tuple[str, str]:
    """Return the queries of `Ownership.here` and `Ownership.elsewhere`.

    `home` is the placeholder of this POP's name, `has_ends` says that there is an `ended_at`.
    """
    table = LEASES if has_ends else _OLD
    here = f"""SELECT id FROM {table} l WHERE home = {home} AND ended_at IS NULL
        AND id IN (SELECT id FROM backends)"""  # noqa: S608
    elsewhere = f"""SELECT DISTINCT id FROM {table} l WHERE home <> {home} AND ended_at IS NULL
        AND id IN (SELECT id FROM {LEASES} WHERE home = {home})"""  # noqa: S608
    return here, elsewhere
