"""A program under measurement: pinned to its CPUs, its processor time and memory read from /proc.

Times are in seconds of processor time, summed over all threads and children, as the scheduler
counts them (nanoseconds, not ticks). Memory is resident bytes.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECS = 30.0
STOP_SECS = 10.0
LOOK_AGAIN_SECS = 0.002


class Process:
    """A running program. Used in a `with` block, at whose end it is stopped."""

    def __init__(
        self,
        argv: Sequence[str],
        cpus: set[int],
        output: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._output = output
        with output.open("wb") as written:
            self.began_at = time.monotonic()
            self._popen = subprocess.Popen(
                pinned(argv, cpus),
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                cwd=output.parent,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_until_it_accepts(self, port: int, secs: float = START_SECS) -> None:
        """Return once a client can connect to `port`. Raises RuntimeError."""
        deadline = self.began_at + secs
        while time.monotonic() < deadline and self._popen.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                pause()
            else:
                return
        said = self._output.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self._popen.args!r} does not accept on port {port}:\n{said}")

    def cpu_secs(self) -> float:
        """Return how much processor time it has used so far."""
        spent_ns = 0
        for pid in self._family():
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    spent_ns += int((task / "schedstat").read_text().split()[0])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return spent_ns / 1e9

    def resident_bytes(self) -> int:
        """Return how much memory it holds."""
        pages = sum(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._family()
        )
        return pages * resource.getpagesize()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        self._popen.send_signal(number)

    def wait(self) -> None:
        """Wait until it ends by itself."""
        self._popen.wait(STOP_SECS)

    def stop(self) -> None:
        """End it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._popen.poll() is None:
                self._popen.send_signal(number)
                try:
                    self._popen.wait(STOP_SECS)
                except subprocess.TimeoutExpired:
                    continue

    def _family(self) -> list[int]:
        pids = [self.pid]
        for pid in pids:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            pids += map(int, children.split())
        return pids


def pinned(argv: Sequence[str], cpus: set[int]) -> list[str]:
    """Return the command that runs another one on these CPUs only."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus))), *argv]


def split_cpus() -> tuple[set[int], set[int]]:
    """Return the CPUs of a proxy and those of load and backends: one each, if there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    return {cpus[0]}, {cpus[-1]}


def pause() -> None:
    """Let a moment pass before looking again."""
    signal.sigtimedwait([], LOOK_AGAIN_SECS)


def python(*arguments: str) -> list[str]:
    """Return the command that runs Python as this program is run."""
    return [sys.executable, *arguments]
