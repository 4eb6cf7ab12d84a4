"""Names are looked up without holding up anybody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import closing
from typing import Any

import pytest

from edgeproxy.store.postgres.driver_loop import DriverLoop

HANGS = """
import socket, threading, time
from contextlib import suppress
from edgeproxy.errors import StoreError
from edgeproxy.store.postgres.url import PostgresSettings, PostgresUrl
from edgeproxy.store.postgres.link import Link

socket.getaddrinfo = lambda *_: time.sleep(60)
url = PostgresUrl("postgres://u:p@db.example/x")
link = Link(PostgresSettings(enabled=True, url=url, connect_timeout_secs=0.1))
for _ in range(3):
    with suppress(StoreError):
        link.read(lambda connection: connection.fetchval("SELECT 1"))
print(sum(each.name in ("names", "asyncio_0", "asyncio_1") for each in threading.enumerate()))
link.close()
"""


def test_a_name_server_that_does_not_answer_does_not_hold_up_the_end() -> None:
    words = [sys.executable, "-c", HANGS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_names_are_looked_up_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    may_answer = threading.Event()

    def answer(*of: Any) -> list[str]:
        asked.append(of)
        may_answer.wait(20)
        if of[0] == "none":
            raise OSError("no such name")
        return ["found"]

    monkeypatch.setattr("socket.getaddrinfo", answer)

    async def look() -> list[Any]:
        loop = asyncio.get_running_loop()
        names = ("db", "db", "none")
        looks = [asyncio.ensure_future(loop.getaddrinfo(name, 5432)) for name in names]
        await asyncio.sleep(0)
        may_answer.set()
        return await asyncio.gather(*looks, return_exceptions=True)

    with closing(DriverLoop()) as loop:
        found = loop.run_until_complete(look())
    assert found[:2] == [["found"], ["found"]]
    assert isinstance(found[2], OSError)
    assert sorted(of[0] for of in asked) == ["db", "none"]
