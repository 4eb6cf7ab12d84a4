"""Edits as the statements of one transaction of Corrosion.

It has the token in a table that is not replicated, so the token and the edits are stored together
or not at all. The second statement is the fence: it fails, and with it all others, unless the token
is still the one that the caller saw.

A new row is an INSERT that becomes an UPDATE if another POP has made the row meanwhile. Anything
else is an UPDATE, which revives no row that another POP has deleted. Corrosion counts the versions
of each column, and those of a column that is set to what it was stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeproxy.core.cluster.rows import TABLES, Edit, Value, key_values

TOKENS = "edgeproxy_token"

Statement = tuple[str, list[Value]]
"""The text and its parameters; in JSON, what the API of Corrosion takes."""

_TOKEN_TABLE = (
    f"CREATE TABLE IF NOT EXISTS {TOKENS} "
    "(one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT NOT NULL)"
)
_FIRST_TOKEN = f"INSERT OR IGNORE INTO {TOKENS} VALUES (1, '')"  # noqa: S608
_FENCE = f"UPDATE {TOKENS} SET token = CASE token WHEN ? THEN ? END"  # noqa: S608
FENCED = f"NOT NULL constraint failed: {TOKENS}.token"
"""What Corrosion answers if the token is another."""


def commit_statements(edits: Sequence[Edit], token: str, after: str) -> list[Statement]:
    """Return the statements that store edits and a token, if the last token is `after`."""
    return [
        (_TOKEN_TABLE, []),
        (_FIRST_TOKEN, []),
        (_FENCE, [after, token]),
        *(_statement(edit) for edit in edits),
    ]


def _statement(edit: Edit) -> Statement:
    key, values = edit
    table = TABLES[key.table]
    keys: list[Value] = list(key_values(key))
    where = " AND ".join(f"{name} = ?" for name in table.keys)
    if values is None:
        return f"DELETE FROM {key.table} WHERE {where}", keys  # noqa: S608
    names, content = list(values), list(values.values())
    if set(names) < set(table.columns):
        pairs = ", ".join(f"{name} = ?" for name in names)
        return f"UPDATE {key.table} SET {pairs} WHERE {where}", [*content, *keys]  # noqa: S608
    listed = ", ".join((*table.keys, *names))
    places = ", ".join("?" * (len(keys) + len(names)))
    pairs = ", ".join(f"{name} = excluded.{name}" for name in names)
    insert = f"INSERT INTO {key.table} ({listed}) VALUES ({places})"  # noqa: S608
    conflict = f"ON CONFLICT ({', '.join(table.keys)}) DO UPDATE SET {pairs}"
    return f"{insert} {conflict}", [*keys, *content]
