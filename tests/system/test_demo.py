"""`edgeproxy demo` as people run it: what it shows, when it fails, and that nothing is left."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.system.running_demo import DEADLINE_SECS, RunningDemo
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def proxy_address(demo: RunningDemo) -> tuple[str, int]:
    found = re.search(r"listen=([\d.]+):(\d+)", demo.seen)
    assert found, demo.seen
    return found[1], int(found[2])


def test_it_shows_the_main_job_and_leaves_nothing(demo: RunningDemo) -> None:
    demo.start()
    err = demo.end()
    assert (demo.process.returncode, err) == (0, ""), demo.seen
    demo.expect_nothing_left()
    rows = [" ".join(line.split()) for line in demo.seen.splitlines()]
    for row in (
        "127.55.0.1 BR Brazil sa-node-1 0.00 client region sa",
        "127.54.0.1 AR Argentina sa-node-2 0.00 client region sa",
        "127.1.0.1 US United States us-node-1 0.00 client region us",
        "127.49.0.1 DE Germany eu-node-1 0.00 client region eu",
        "127.81.0.1 JP Japan sa-node-3 100.00 none in ap: POP region sa",
        "127.0.0.1 unknown sa-node-1 100.01 region unknown: POP region sa",
        "127.55.0.1 BR Brazil sa-node-1 sa-node-2 sa-node-1 unhealthy",
        "127.0.0.1 unknown sa-node-1 sa-node-3 sa-node-1 unhealthy",
        "127.49.0.1 DE Germany eu-node-1 eu-node-1 bound",
        "127.1.0.1 US United States us-node-1 us-node-2 us-node-1 failed lately",
    ):
        assert row in rows
    for claim in (
        r"✓ 2 clients moved, \d\.\d\d s after the command",
        r"✓ served within the same connection, \d+ ms after its start",
        r"✓ a new connection is refused",
        r"✓ 3 downloads finished: 57\.6 MB, SHA-256 as expected",
        r"✓ the proxy exited with 0: refused=0 failovers=1 cut=0 still_active=0",
    ):
        assert re.search(f"^{claim}$", demo.seen, re.MULTILINE), demo.seen
    assert "✗" not in demo.seen
    assert "\x1b" not in demo.seen, "no colours where there is no terminal"


def test_it_is_undisturbed_by_settings_from_outside_and_by_a_poor_encoding(
    demo: RunningDemo,
) -> None:
    demo.start(
        PYTHONIOENCODING="ascii",
        EDGEPROXY_CONFIG="/nonexistent",
        EDGEPROXY_REGION="eu",
        EDGEPROXY_BINDING_TTL_SECS="nonsense",
        DEBUG="nonsense",
    )
    err = demo.end()
    assert (demo.process.returncode, err) == (0, ""), demo.seen
    assert "ok a new connection is refused" in demo.seen


def test_it_fits_80_columns(demo: RunningDemo) -> None:
    demo.start("--keep")
    demo.read_until("Ctrl+C")
    ours = [line for line in demo.seen.splitlines() if "/" not in line]  # paths may be long
    assert max(map(len, ours)) <= 80


def test_it_fails_when_the_proxy_dies_under_it(demo: RunningDemo) -> None:
    demo.start()
    demo.kill_proxy()
    demo.end()
    assert demo.process.returncode == 1, demo.seen
    assert "✗" in demo.seen
    assert "expected:" in demo.seen
    demo.expect_nothing_left()


def test_it_shows_what_a_proxy_says_that_does_not_start(demo: RunningDemo) -> None:
    demo.start(EDGEPROXY_ENGINE="steam")
    demo.end()
    assert demo.process.returncode == 1, demo.seen
    assert "✗ edgeproxy serve is ready\n" in demo.seen
    assert "EDGEPROXY_ENGINE='steam'" in demo.seen
    demo.expect_nothing_left()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("backends run", signal.SIGINT),
        ("1. ", signal.SIGTERM),
        ("2. ", signal.SIGHUP),
        ("3. ", signal.SIGINT),
    ],
)
def test_nothing_is_left_when_it_is_interrupted(
    demo: RunningDemo, moment: str, number: int
) -> None:
    demo.start()
    demo.read_until(moment)
    demo.signal(number)
    demo.expect_ended_by(number)


def test_nothing_is_left_when_its_reader_leaves(demo: RunningDemo) -> None:
    demo.start()
    demo.read_until("1. ")
    assert demo.process.stdout is not None
    demo.process.stdout.close()
    assert demo.process.wait(DEADLINE_SECS) == 1
    demo.expect_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_kept_it_serves_until_interrupted_and_lets_open_connections_finish(
    demo: RunningDemo, number: int
) -> None:
    demo.start("--keep")
    demo.read_until("Ctrl+C")
    address = proxy_address(demo)
    with socket.create_connection(address, DEADLINE_SECS, ("127.49.0.1", 0)) as client:
        stream = client.makefile("rwb", 0)
        stream.write(b"before\n")
        assert stream.readline() == b"eu-node-1: before\n"
        demo.signal(number)
        wait_until(refused_by(address), "new clients are refused")
        stream.write(b"after\n")
        assert stream.readline() == b"eu-node-1: after\n"
        assert demo.process.poll() is None
        stream.close()
    err = demo.end()
    assert (demo.process.returncode, err) == (0, ""), demo.seen
    assert "✓ the proxy finished its open connections and exited with 0" in demo.seen
    demo.expect_nothing_left()


def test_what_it_offers_to_try_when_kept_works(demo: RunningDemo) -> None:
    demo.start("--keep")
    demo.read_until("Ctrl+C")
    offered = [line for line in demo.seen.splitlines() if line.startswith("    ")]
    exports = "\n".join(line for line in offered if line.lstrip().startswith("export "))
    commands = [line for line in offered if re.search(r"edgeproxy (?!top)|curl (?!-N)", line)]
    assert {"status", "sessions", "drain", "undrain"} <= {line.split()[1] for line in commands}
    assert sum("/metrics" in line or "/api/" in line for line in commands) == 3
    for command in commands:
        if "curl" in command and shutil.which("curl") is None:
            continue
        done = subprocess.run(
            ["sh", "-c", f"{exports}\n{command.replace('curl', 'curl --fail')}"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECS,
            check=False,
        )
        assert (done.returncode, bool(done.stdout)) == (0, True), command + done.stderr
    demo.signal(signal.SIGINT)
    demo.end()


def test_kept_it_ends_at_once_when_interrupted_twice(demo: RunningDemo) -> None:
    demo.start("--keep")
    demo.read_until("Ctrl+C")
    address = proxy_address(demo)
    with socket.create_connection(address, DEADLINE_SECS) as client:
        client.sendall(b"hello\n")
        assert client.recv(100)
        demo.signal(signal.SIGINT)
        wait_until(refused_by(address), "new clients are refused")
        demo.signal(signal.SIGINT)
        demo.end()
    assert demo.process.returncode == 130
    demo.expect_nothing_left()


def test_kept_it_fails_when_the_proxy_ends_by_itself(demo: RunningDemo) -> None:
    demo.start("--keep")
    demo.read_until("Ctrl+C")
    demo.kill_proxy()
    demo.end()
    assert demo.process.returncode == 1
    assert "✗ the proxy keeps running\n" in demo.seen
    assert "ready listen=" in demo.seen, "the proxy's last log lines are shown"
    demo.expect_nothing_left()


def refused_by(address: tuple[str, int]) -> Callable[[], bool]:
    def look() -> bool:
        try:
            socket.create_connection(address, DEADLINE_SECS).close()
        except ConnectionRefusedError:
            return True
        return False

    return look
