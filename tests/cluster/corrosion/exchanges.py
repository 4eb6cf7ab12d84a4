"""What Corrosion answers, as it was recorded, and how to record it again.

EDGEPROXY_TEST_CORROSION=corrosion python -m tests.cluster.corrosion.exchanges
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from edgeproxy.cluster.corrosion import admin
from edgeproxy.cluster.corrosion.statements import Statement, commit_statements
from edgeproxy.core.cluster.rows import BACKENDS, ROUTES, Edit, Key
from tests.cluster.corrosion.pops import corrosions, stop
from tests.cluster.corrosion.test_statements import BACKEND

RECORDED = Path(__file__).with_name("recorded.json")
VARIES = {"time", "actor_id", "version", "rows_affected"}
A, B = Key(BACKENDS, "a"), Key(BACKENDS, "b")

REQUESTS: dict[str, list[Statement]] = {
    "inserts": commit_statements([Edit(A, BACKEND), Edit(Key(ROUTES, "*"), {"app": "x"})], "1", ""),
    "updates": commit_statements([Edit(A, {"weight": 7}), Edit(B, {"weight": 7})], "2", "1"),
    "late": commit_statements([Edit(A, None)], "3", "1"),
    "deletes": commit_statements([Edit(A, None)], "4", "2"),
    "only a token": commit_statements([], "5", "4"),
    "a missing table": [("INSERT INTO music VALUES (?)", ["x"])],
    "nothing": [],
}
"""In this order, on a new state."""


def recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORDED.read_text("utf-8"))
    return content


def without_what_varies(content: Any) -> Any:
    if isinstance(content, dict):
        return {
            name: without_what_varies(value)
            for name, value in content.items()
            if name not in VARIES
        }
    if isinstance(content, list):
        return [without_what_varies(value) for value in content]
    return content


def record(folder: Path) -> dict[str, Any]:
    """Return what a Corrosion answers, one of two POPs."""
    both = corrosions(folder, ("sa", "us"))
    try:
        place = both[0].engine._program.place
        assert place is not None
        transactions = {}
        with closing(http.client.HTTPConnection("127.0.0.1", place.port)) as connection:
            for name, statements in [*REQUESTS.items(), ("a wrong secret", REQUESTS["nothing"])]:
                secret = "x" if "secret" in name else place.secret
                headers = {
                    "Authorization": f"Bearer {secret}",
                    "Content-Type": "application/json",
                }
                connection.request("POST", "/v1/transactions", json.dumps(statements), headers)
                answer = connection.getresponse()
                transactions[name] = {
                    "statements": json.loads(json.dumps(statements)),
                    "status": answer.status,
                    "answer": answer.read().decode(),
                }
        asked = {
            name: asyncio.run(admin.ask(place.admin_socket, command))
            for name, command in (("members", admin.MEMBERS), ("states", admin.MEMBERSHIP))
        }
        actors = [each.engine._facts.actor for each in both]
        return {"transactions": transactions, **asked, "actors": actors}
    finally:
        stop(both)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = record(Path(folder))
    RECORDED.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{RECORDED} is written\n")


if __name__ == "__main__":
    main()
