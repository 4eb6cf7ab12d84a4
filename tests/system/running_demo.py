"""One `edgeproxy demo` as a test runs it, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.waiting import wait_until

DEADLINE_SECS = 120


class RunningDemo:
    """One `edgeproxy demo`; all of its processes are known by their TMPDIR."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._process: subprocess.Popen[str] | None = None
        self.seen = ""

    def start(self, *words: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeproxy", "demo", *words],
            env={
                **os.environ,
                "PYTHONIOENCODING": "utf-8",
                **variables,
                "TMPDIR": str(self._tmp_path),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def read_until(self, text: str) -> None:
        """Read what is printed up to a line that holds `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if text in line:
                return
        raise AssertionError(f"{text!r} never appeared in:\n{self.seen}{self.end()}")

    def end(self) -> str:
        """Wait for the end; return what was written to stderr."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.seen += self.process.stdout.read()
        self.process.wait(DEADLINE_SECS)
        return self.process.stderr.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def running(self) -> dict[int, str]:
        """Return the command lines of all processes of this demo by their id."""
        mark = f"TMPDIR={self._tmp_path}\0".encode()
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is somebody else's
                if mark in (directory / "environ").read_bytes():
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                    if command:
                        found[int(directory.name)] = command.decode().strip()
        return found

    def proxy_pid(self) -> int | None:
        """Return the id of the proxy's process if it runs."""
        for pid, command in self.running().items():
            if command.endswith("edgeproxy serve"):
                return pid
        return None

    def kill_proxy(self) -> None:
        """Kill the proxy as soon as there is one."""
        wait_until(self.proxy_pid, "the demo starts a proxy")
        pid = self.proxy_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def expect_ended_by(self, number: int) -> None:
        """Expect that a signal ended it, and that nothing is left."""
        err = self.end()
        assert self.process.returncode == 128 + number, self.seen
        assert err == f"edgeproxy: demo ended by {signal.Signals(number).name}\n"
        self.expect_nothing_left()

    def expect_nothing_left(self) -> None:
        assert self.running() == {}
        assert list(self._tmp_path.iterdir()) == []

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pid in self.running():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.communicate()
