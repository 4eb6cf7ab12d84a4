"""One `edgeproxy serve` of a demo: its process, its log, and commands in its environment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edgeproxy.cli.demo.expected import DEADLINE_SECS, LOOK_SECS, UnmetError, eventually
from edgeproxy.cli.demo.signals import StopSignals

_FROM_OUTSIDE = ("EDGEPROXY_ENGINE",)
"""Variables that are passed on to the proxy from the environment of the demo."""

_GONE_SECS = 5.0
_PAUSE = threading.Event()  # never set: waiting on it is a pause


class Proxy:
    """A proxy that runs.

    Attributes:
        name: What people call it.
        log: The file that takes its stderr.
        process: Its process.
    """

    def __init__(
        self, name: str, log: Path, variables: Mapping[str, str], signals: StopSignals
    ) -> None:
        """Start it. `variables` are its EDGEPROXY_* variables."""
        self.name = name
        self.log = log
        self._environ = environ_with(variables)
        self._signals = signals
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeproxy", "serve"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                process_group=0,
            )

    def ready(self) -> dict[str, str]:
        """Wait until it serves; return what its ready line says."""
        return self.logged("ready", "edgeproxy serve is ready")

    def logged(self, event: str, claim: str) -> dict[str, str]:
        """Wait until the proxy has logged this event; return the fields of its line."""

        def look() -> dict[str, str] | None:
            ended = self.process.poll()  # before reading: an ended proxy writes no more
            if events := self.events(event):
                return events[0]
            if ended is not None:
                raise UnmetError(claim, f"a log line {event!r}", f"{self.name} ended with {ended}")
            return None

        return eventually(claim, look)

    def events(self, event: str) -> list[dict[str, str]]:
        """Return the fields of all lines with this event that it has logged so far."""
        lines = [shlex.split(each) for each in self.log_lines() if each.startswith(f"{event} ")]
        return [dict(word.split("=", 1) for word in words[1:]) for words in lines]

    def log_lines(self) -> list[str]:
        """Return the whole lines that the proxy has logged."""
        text = self.log.read_text("utf-8", "replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def command(self, *words: str) -> str:
        """Run an `edgeproxy` command on its routing database; return what it printed."""
        typed = f"edgeproxy {shlex.join(words)}"
        command = [sys.executable, "-m", "edgeproxy", *words]
        return output_of(command, typed, self._signals, environ=self._environ)

    def kill(self) -> None:
        """Kill it and the processes that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it and the processes that it has started are gone."""
        self.process.wait()
        deadline = time.monotonic() + _GONE_SECS
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                _PAUSE.wait(LOOK_SECS)


def environ_with(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command, with no other settings of the caller than these."""
    ours = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("EDGEPROXY_") and name != "DEBUG"
    }
    from_outside = {name: os.environ[name] for name in _FROM_OUTSIDE if name in os.environ}
    return ours | from_outside | dict(variables)


def output_of(
    command: Sequence[str],
    typed: str,
    signals: StopSignals,
    *,
    environ: Mapping[str, str],
    directory: Path | None = None,
) -> str:
    """Run a program; return what it printed. Raises UnmetError, which names it as `typed`."""
    try:
        with signals.held_off():
            done = subprocess.run(  # noqa: S603
                command,
                env=environ,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECS,
                process_group=0,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise UnmetError(typed, f"within {DEADLINE_SECS:g} s", "not yet") from None
    if done.returncode:
        seen = f"exit code {done.returncode}: {done.stderr.strip()}"
        raise UnmetError(typed, "exit code 0", seen)
    return done.stdout.strip()
