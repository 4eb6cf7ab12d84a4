"""The socket of the agent answers its own user, and only what is asked rightly."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cluster.agent_socket import MAX_PATH_BYTES, AgentError, ask, serve, socket_path


async def answer(name: str, arguments: Mapping[str, Any]) -> object:
    if name == "echo":
        return dict(arguments)
    raise AgentError(f"no {name} here")


@pytest.fixture
def db_path(tmp_path: Path) -> Iterator[Path]:
    """The path of a state whose agent answers."""
    path = tmp_path / "state.db"
    loop = asyncio.new_event_loop()
    over, serves = asyncio.Event(), threading.Event()

    async def live() -> None:
        async with await serve(socket_path(path), answer):
            serves.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    serves.wait()
    yield path
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def test_a_question_is_answered(db_path: Path) -> None:
    assert ask(db_path, "echo", number=7, text="é") == {"number": 7, "text": "é"}


def test_a_refusal_says_why(db_path: Path) -> None:
    with pytest.raises(AgentError, match="no tea here"):
        ask(db_path, "tea")


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[]\n", b"\xff\n", b"5\n"])
def test_what_is_no_question_is_refused_with_what_is_allowed(db_path: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path(db_path)))
        connection.sendall(line)
        with connection.makefile("rb") as lines:
            assert b'{\\"ask\\": \\"status\\"}' in lines.readline()


def test_a_question_that_is_too_long_gets_no_answer(db_path: Path) -> None:
    with pytest.raises(AgentError):
        ask(db_path, "echo", text="x" * 100_000)
    assert ask(db_path, "echo") == {}


def test_only_its_user_may_ask(db_path: Path) -> None:
    assert stat.S_IMODE(socket_path(db_path).stat().st_mode) == 0o600


def test_without_an_agent_it_is_said_how_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="EDGEPROXY_REPLICATION_ENABLED=true"):
        ask(tmp_path / "state.db", "status")


def test_a_socket_of_a_dead_agent_is_replaced(tmp_path: Path) -> None:
    path = socket_path(tmp_path / "state.db")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(AgentError, match="cannot be asked"):
        ask(tmp_path / "state.db", "status")

    async def replace() -> None:
        async with await serve(path, answer):
            assert path.exists()

    asyncio.run(replace())


def test_a_path_may_be_longer_than_the_address_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * MAX_PATH_BYTES)
    folder.mkdir()
    path = folder / "state.db"

    async def converse() -> object:
        async with await serve(socket_path(path), answer):
            return await asyncio.to_thread(ask, path, "echo", number=7)

    assert asyncio.run(converse()) == {"number": 7}


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be made"):
        asyncio.run(serve(tmp_path / "missing" / "socket", answer))
