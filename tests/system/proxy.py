"""A real `edgeproxy` process: started, watched through its log, signalled, stopped, checked.

A proxy that a test leaves running is stopped at the end, and must then have its books in
order: exit code 0, no slot held, no error reported, nothing on stderr but its log.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.store.editing import execute
from tests.waiting import wait_until

EDGEPROXY = (sys.executable, "-m", "edgeproxy")
SERVE = (*EDGEPROXY, "serve")

DEFAULTS = {
    "EDGEPROXY_ENGINE": os.environ.get("EDGEPROXY_ENGINE", "auto"),  # of the whole test run
    "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
    "EDGEPROXY_DB_RELOAD_SECS": "0.05",
    "PYTHONWARNINGS": "default",  # one would be a line that is no event
}
DEADLINE_SECS = 20.0

Event = dict[str, Any]
"""One line of the log; the event's name is under `event`, text is all that a text log has."""

_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^" =]*)')
_LINE = re.compile(rf"(\w+)((?:{_FIELD.pattern})*)")


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with these settings of edgeProxy and no others.

    The file and the control socket of a service on this machine are not touched.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EDGEPROXY_") and name != "DEBUG"
    }
    apart = {"EDGEPROXY_CONFIG": "", "EDGEPROXY_CONTROL_SOCKET": "off"}
    return {**inherited, **apart, **variables}


def run_edgeproxy(
    *words: str, folder: Path, command: Sequence[str] = EDGEPROXY, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, in `folder`, with only these settings."""
    return subprocess.run(
        [*command, *words],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECS,
        check=False,
    )


class RunningProxy:
    """One proxy process in `folder`, starting to listen on a port of the system's choice.

    `variables` are added to `DEFAULTS`. `max_descriptors` is its limit of open files.

    Attributes:
        events: The lines of its log so far.
        foreign: Lines on stderr that are no line of its log.
        address: Where clients reach it.
        database: Its routing database.
    """

    address: tuple[str, int]

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, str],
        *,
        command: Sequence[str] = SERVE,
        max_descriptors: int | None = None,
    ) -> None:
        environment = clean_environment(**{**DEFAULTS, **variables})
        self._parse = _parse_json if variables.get("EDGEPROXY_LOG_FORMAT") == "json" else _parse
        self.database = folder / environment.get("EDGEPROXY_DB_PATH", "routing.db")
        self.events: list[Event] = []
        self.foreign: list[str] = []
        self._is_checked = False
        self._is_deaf = False
        self._may_read = threading.Event()
        self._may_read.set()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        if max_descriptors is not None:
            limits = (max_descriptors, max_descriptors)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, limits)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def wait_until_ready(self) -> None:
        """Wait until it accepts clients, and learn where."""
        host, _, port = self.wait_for("ready")["listen"].rpartition(":")
        self.address = (host.strip("[]"), int(port))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._is_checked:
                self.stop() if self.is_running() else self.last_words()
        finally:
            self.kill()

    # -- its log ----------------------------------------------------------------------

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._take(line.rstrip("\n"))
                self._may_read.wait()
                if self._is_deaf:
                    return

    def _take(self, line: str) -> None:
        event = self._parse(line)
        if event is None:
            self.foreign.append(line)
        else:
            self.events.append(event)

    def stop_reading(self) -> None:
        """Leave what it writes to stderr unread from the next line on."""
        self._may_read.clear()

    def hang_up(self) -> None:
        """Close the other end of its stderr after the next line."""
        self._is_deaf = True

    def read_on(self) -> None:
        """Read its stderr again."""
        self._may_read.set()

    def seen(self, event: str, **fields: object) -> list[Event]:
        """Return the lines of this event so far that have these fields."""
        return [
            line
            for line in list(self.events)
            if line["event"] == event and fields.items() <= line.items()
        ]

    def wait_for(self, event: str, count: int = 1, **fields: object) -> Event:
        """Return the line of this event and fields that makes `count` of them."""

        def is_there() -> bool:
            ended = self._process.poll() is not None and not self._reader.is_alive()
            found = self.seen(event, **fields)
            assert found or not ended, f"ended without {event} {fields}: {self.told()}"
            return len(found) >= count

        try:
            wait_until(is_there, f"{event} {fields}", DEADLINE_SECS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None
        return self.seen(event, **fields)[count - 1]

    def told(self) -> str:
        """Return everything it wrote, for the message of a failed test."""
        return "\n".join([*map(str, self.events), *self.foreign])

    # -- its routing database ---------------------------------------------------------

    def edit(self, sql: str) -> None:
        """Change the routing database as another program, and wait until that is in force."""
        published = len(self.seen("table_published"))
        execute(self.database, sql)
        self.wait_for("table_published", published + 1)

    # -- its process ------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_for_exit(self, secs: float = DEADLINE_SECS, *, is_replaced: bool = False) -> int:
        """Return its exit code; fail if it takes longer than `secs`.

        All that it has written is read then, unless a successor goes on writing.
        """
        self._is_checked = True
        try:
            code = self._process.wait(secs)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {secs} s\n{self.told()}") from None
        self.read_on()
        if not is_replaced:
            self._reader.join(DEADLINE_SECS)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Event:
        """Stop it, check that its books are in order, return its last words."""
        self.send(number)
        return self.last_words()

    def last_words(self) -> Event:
        """Wait for its end, check that its books are in order, return the last line."""
        assert self.wait_for_exit() == 0, self.told()
        assert not self.foreign, self.foreign
        assert not [line for line in self.events if line["level"] == "error"], self.told()
        (stopped,) = self.seen("stopped")
        assert int(stopped["still_active"]) == 0, stopped
        return stopped

    def kill(self) -> None:
        """End it whatever it is doing; harmless if it has ended."""
        self._process.kill()
        self.wait_for_exit()

    def descriptors(self) -> int:
        """Return how many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_secs(self) -> float:
        """Return the processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


def _parse(line: str) -> Event | None:
    whole = _LINE.fullmatch(line)
    fields = {key: _unquoted(text) for key, text in _FIELD.findall(line)}
    if whole is None or not fields.keys() >= {"level", "time"}:
        return None
    return {"event": whole[1], **fields}


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def _parse_json(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and event.keys() >= {"event", "level", "time"} else None
