"""`edgeproxy top` on a terminal: its keys, its width, and the terminal as it was afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.pop import BRAZIL, Pop
from tests.system.proxy import DEADLINE_SECS, EDGEPROXY, clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.system

COLUMNS = 50
ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Top:
    """One `edgeproxy top` on a terminal of its own, which refreshes only when a key is pressed."""

    def __init__(self, folder: Path, socket: str) -> None:
        self._ours, self._theirs = pty.openpty()
        size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, size)
        self.modes = self.terminal_modes()
        environ = clean_environment(TERM="xterm")
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environ.pop(name, None)
        self._process = subprocess.Popen(
            [*EDGEPROXY, "top", "--interval", "3600", "--socket", socket],
            cwd=folder,
            env=environ,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=subprocess.PIPE,
        )
        self.seen = ""

    def terminal_modes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def screen(self) -> str:
        """Return what the last refresh wrote, with its colours; "" before it is whole."""
        while select.select([self._ours], [], [], 0)[0]:
            self.seen += os.read(self._ours, 65536).decode()
        last = self.seen.rpartition("\x1b[H")[2]
        return last if last.endswith("\x1b[J") else ""

    def press(self, key: str) -> str:
        """Press a key; return what is on the screen after the next refresh."""
        self.seen = ""
        os.write(self._ours, key.encode())
        wait_until(self.screen, f"a refresh after {key!r}", DEADLINE_SECS)
        return self.screen()

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait(DEADLINE_SECS)

    def quit(self, key: str) -> int:
        """Press a key that ends it; return its exit code."""
        os.write(self._ours, key.encode())
        return self.end()

    def interrupt(self) -> int:
        """Send what a terminal sends for Ctrl+C; return its exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def interrupt_until_the_end(self) -> int:
        """Send it again and again, as `timeout` or a held Ctrl+C does; return its exit code."""
        wait_until(self._sent_and_ended, "the end of top", DEADLINE_SECS)
        return self.end()

    def _sent_and_ended(self) -> bool:
        self._process.send_signal(signal.SIGINT)
        return self._process.poll() is not None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def top(pop: Pop) -> Iterator[Top]:
    pop.backend("sa-busy")
    pop.backend("sa-other", weight=0)
    pop.backend("us-1", "us", healthy=0)
    path = str(pop.folder / "control")
    pop.serve(EDGEPROXY_CONTROL_SOCKET=path)
    pop.holder(BRAZIL)
    top = Top(pop.folder, path)
    yield top
    top.close()


def order(screen: str) -> list[str]:
    lines = [ESCAPE.sub("", line) for line in screen.splitlines()]
    return [line.split()[0] for line in lines if re.match(r"(sa|us)-", line)]


def test_keys_sort_and_q_quits(top: Top) -> None:
    wait_until(top.screen, "the first page", DEADLINE_SECS)
    assert order(top.screen()) == ["sa-busy", "sa-other", "us-1"]
    assert order(top.press("s"))[-1] == "sa-busy", "what is not well comes first"
    assert order(top.press("b")) == ["sa-busy", "sa-other", "us-1"]
    assert top.quit("q") == 0
    assert top.terminal_modes() == top.modes


def test_lines_are_clipped_and_only_what_is_not_well_has_a_colour(top: Top) -> None:
    wait_until(top.screen, "the first page", DEADLINE_SECS)
    lines = [line.rstrip("\r") for line in top.screen().split("\n")]
    assert max(len(ESCAPE.sub("", line)) for line in lines) == COLUMNS
    coloured = [line for line in lines if re.search(r"\x1b\[3\dm", line)]
    assert {ESCAPE.sub("", line).split()[0] for line in coloured} == {"us-1", "sa-other"}
    assert top.interrupt() == 0
    assert top.terminal_modes() == top.modes


def test_only_the_first_interrupt_counts(top: Top) -> None:
    wait_until(top.screen, "the first page", DEADLINE_SECS)
    assert top.interrupt_until_the_end() == 0
    assert top.terminal_modes() == top.modes
