"""Questions on the admin socket, answered in frames as Corrosion does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeproxy.cluster.corrosion import admin
from edgeproxy.cluster.engine import EngineError

LOG = {"Log": {"level": "debug", "msg": "gathering members", "ts": "2026-11-30"}}


def frame(content: object) -> bytes:
    body = json.dumps(content).encode()
    return len(body).to_bytes(4, "big") + body


@asynccontextmanager
async def answering(path: Path, answer: bytes, asked: list[object]) -> AsyncIterator[None]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        asked.append(json.loads(await reader.readexactly(length)))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(converse, path):
        yield


def answered(folder: Path, answer: bytes, command: object = admin.MEMBERS) -> list[object]:
    """Return what was asked and what came of it."""

    async def run() -> list[object]:
        asked: list[object] = []
        async with answering(folder / "admin", answer, asked):
            return [*asked, *await admin.ask(folder / "admin", command, 5), *asked]

    return asyncio.run(run())


def test_all_frames_until_success_are_the_answer(tmp_path: Path) -> None:
    answer = frame(LOG) + frame({"Json": {"id": 1}}) + frame({"Json": {"id": 2}}) + frame("Success")
    assert answered(tmp_path, answer) == [{"id": 1}, {"id": 2}, {"Cluster": "Members"}]


def test_a_command_may_have_a_value(tmp_path: Path) -> None:
    assert answered(tmp_path, frame("Success"), admin.set_id(7)) == [{"Cluster": {"SetId": 7}}]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (frame({"Error": {"msg": "no such thing"}}), "refuses: no such thing"),
        (frame(LOG), "does not answer"),
        (b"", "does not answer"),
        (frame("Success")[:-1], "does not answer"),
        ((1 << 30).to_bytes(4, "big"), "cannot be asked"),
        (b"\0\0\0\1{", "cannot be asked"),
        (frame(["Success"]) + frame(7), "cannot be asked"),
    ],
)
def test_anything_else_is_a_fault(tmp_path: Path, answer: bytes, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        answered(tmp_path, answer)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be asked at"):
        asyncio.run(admin.ask(tmp_path / "admin", admin.MEMBERS))


def test_one_that_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the caller has gone
        writer.close()
        gone.set()

    async def run() -> None:
        async with await asyncio.start_unix_server(listen, tmp_path / "a"):
            try:
                await admin.ask(tmp_path / "a", admin.MEMBERS, 0.05)
            finally:
                await gone.wait()

    gone = asyncio.Event()

    with pytest.raises(EngineError, match="does not answer"):
        asyncio.run(run())
