"""A loop that was held up has heard what came meanwhile before it judges anybody."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing
from typing import Any

import pytest

from edgeproxy.control.awake_loop import AwakeLoop
from tests.waiting import PAUSE

HELD_UP_SECS = 3.0
TIMEOUT_SECS = 1.0
DEADLINE_SECS = 60.0

STOPPED = """
import asyncio, sys
from edgeproxy.control.awake_loop import AwakeLoop

async def hear():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    began = loop.time()
    async with asyncio.timeout(5):
        heard = await reader.readline()
    print(heard.decode().strip(), loop.time() - began < 5, flush=True)

with asyncio.Runner(loop_factory=AwakeLoop) as runner:
    runner.run(hear())
"""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with closing(near), closing(far):
        yield near, far


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=AwakeLoop) as runner:
        runner.run(work)


def test_what_came_while_the_loop_was_held_up_is_not_late(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair

    def hold_up() -> None:
        far.send(b"in time")
        PAUSE.wait(HELD_UP_SECS)

    async def hear() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(hold_up)
        async with asyncio.timeout(TIMEOUT_SECS):
            assert await loop.sock_recv(near, 7) == b"in time"

    _run(hear())


def test_what_takes_several_turns_gets_the_time_that_was_lost(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair

    async def converse() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(PAUSE.wait, HELD_UP_SECS)
        async with asyncio.timeout(TIMEOUT_SECS):
            for _ in range(3):
                far.send(b"x")
                assert await loop.sock_recv(near, 1) == b"x"
                await asyncio.sleep(0)

    _run(converse())


def test_the_clock_leaves_out_the_time_and_never_goes_back() -> None:
    async def read_clock() -> None:
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        for _ in range(3):
            loop.call_soon(PAUSE.wait, HELD_UP_SECS / 3)
            await asyncio.sleep(0.01)
            seen.append(loop.time())
        assert seen == sorted(seen)
        real_secs = time.monotonic() - began
        assert seen[-1] - seen[0] <= real_secs - HELD_UP_SECS + 0.01

    began = time.monotonic()
    _run(read_clock())


def test_what_is_silent_is_late_all_the_same(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _far = pair

    async def hear() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await loop.sock_recv(near, 1)

    _run(hear())


def test_a_process_that_was_stopped_hears_what_came_meanwhile() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, signal.SIGSTOP)
            PAUSE.wait(6.0)
            process.stdin.write("in time\n")
            process.stdin.flush()
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "in time True\n"
            assert process.wait(DEADLINE_SECS) == 0
        finally:
            process.kill()
