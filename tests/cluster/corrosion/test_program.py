"""The life of the program, with one that stands in for Corrosion."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edgeproxy.cluster.corrosion import program as program_module
from edgeproxy.cluster.corrosion.configuration import Place
from edgeproxy.cluster.corrosion.program import Program, environment_for, free_port, tell
from edgeproxy.cluster.engine import EngineError
from tests.events import events_of
from tests.waiting import wait_until

STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_module, "FIRST_PAUSE_SECS", 0.01)
    monkeypatch.setattr(program_module, "LONGEST_PAUSE_SECS", 0.05)
    monkeypatch.setattr(program_module, "LOOK_SECS", 0.02)
    monkeypatch.setattr(program_module, "END_SECS", 0.3)


class Life:
    """A program in a folder of its own, and how it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_silent = False
        self.program = Program(str(STAND_IN), folder, self.prepare, self.look)

    def prepare(self) -> Place:
        place = Place(self.folder, free_port(), "secret")
        place.configuration.write_text("")
        return place

    async def look(self) -> None:
        if self.is_silent:
            raise EngineError("silent")

    @property
    def pids(self) -> list[int]:
        """The processes that have started, which are ready for signals."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in (self.folder / "started").read_text().split()]
        return []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.program.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
    assert condition(), what


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def test_it_is_started_again_when_it_dies(tmp_path: Path) -> None:
    async def run() -> None:
        life = Life(tmp_path)
        async with life.running():
            await until(lambda: len(life.pids) == 1, "a start")
            first = life.program.place
            os.kill(life.pids[0], signal.SIGKILL)
            await until(lambda: len(life.pids) == 2, "another start")
            assert life.program.starts_total == 2
            assert life.program.place != first
            assert life.program.fault == ""
        assert life.program.place is None
        assert not is_alive(life.pids[1])

    asyncio.run(run())


def test_one_that_ends_at_once_is_tried_again_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "ends")

    async def run() -> None:
        life = Life(tmp_path)
        async with life.running():
            await until(lambda: life.program.starts_total == 3, "three starts")
            await until(lambda: life.program.fault, "a fault")
            assert life.program.fault == "it has ended with code 3"

    asyncio.run(run())


def test_one_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        life = Life(tmp_path)
        life.program._path = str(tmp_path / "missing")
        async with life.running():
            await until(lambda: "No such file" in life.program.fault, "a fault")

    asyncio.run(run())


def test_one_that_does_not_answer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_module, "WEDGED_SECS", 0.1)

    async def run() -> None:
        life = Life(tmp_path)
        life.is_silent = True
        async with life.running():
            await until(lambda: life.program.starts_total == 2, "another start")
            life.is_silent = False
            await until(lambda: life.pids, "a life")

    asyncio.run(run())


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "deaf")

    async def run() -> None:
        life = Life(tmp_path)
        async with life.running():
            await until(lambda: life.pids, "a start")
        assert not is_alive(life.pids[0])

    asyncio.run(run())


@pytest.mark.parametrize("how", ["", "deaf"])
def test_one_that_a_dead_agent_has_left_is_ended_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("STAND_IN", how)

    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [str(STAND_IN), "--config", str(tmp_path / "config.toml"), "agent"]
    with subprocess.Popen(command, pass_fds=(lock,)) as left:
        os.pwrite(lock, str(left.pid).encode(), 0)
        os.close(lock)
        life = Life(tmp_path)
        wait_until(lambda: life.pids, "a start")

        async def run() -> None:
            async with life.running():
                await until(lambda: len(life.pids) == 2, "another start")

        asyncio.run(run())
        assert left.wait() == (-signal.SIGKILL if how else 0)


def test_what_would_change_its_settings_is_not_in_its_environment() -> None:
    environment = {"PATH": "/bin", "DB__PATH": "x", "API": "x", "Log__Format": "x", "DBX": "1"}
    assert environment_for(environment) == {"PATH": "/bin", "DBX": "1", "RUST_LOG": "info"}
    assert environment_for({"RUST_LOG": "warn"}) == {"RUST_LOG": "warn"}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b'{"level": "INFO", "fields": {"message": "Member Up"}}', "debug"),
        (b'{"level": "WARN", "fields": {"message": "Member Up"}}', "warning"),
        (b'{"level": "ERROR", "fields": {"message": "Member Up"}}', "warning"),
        (b"thread 'main' panicked: Member Up\n", "warning"),
        (b"[1, 2] Member Up \xff", "warning"),
    ],
)
def test_its_log_is_in_ours(line: bytes, level: str) -> None:
    with events_of("cluster") as events:
        tell(line)
    ((reported, _, fields),) = events.all
    assert reported == level
    assert "Member Up" in fields["message"]


def test_a_line_without_end_does_not_stop_the_log() -> None:
    async def run() -> None:
        reader = asyncio.StreamReader(limit=100)
        reader.feed_data(b"x" * 250 + b"\nlast")
        reader.feed_eof()
        await program_module._tell(reader)

    with events_of("cluster") as events:
        asyncio.run(run())
    assert events.all[-1][2]["message"] == "last"
