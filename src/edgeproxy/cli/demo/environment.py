"""Everything the demo runs on: a temporary directory, nine backends and a real proxy.

The proxy and each backend are separate processes. Closing the environment ends them all and
removes the directory, whatever happened before. Each child has its own process group: Ctrl+C
reaches only the demo, which then ends the children in order.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeproxy.cli.demo import backend as backend_program
from edgeproxy.cli.demo.expected import DEADLINE_SECS, UnmetError, eventually
from edgeproxy.cli.demo.signals import StopSignals
from edgeproxy.core.backends.backend import Backend
from edgeproxy.errors import EdgeProxyError, reason_of
from edgeproxy.store.sqlite.database import create
from edgeproxy.store.sqlite.nodes import Nodes

LOOPBACK = "127.0.0.1"
POP_REGION = "sa"
NODES = {f"{region}-node-{n}": region for region in ("sa", "us", "eu") for n in (1, 2, 3)}
"""The region of each backend by its id."""

RELOAD_SECS = 0.2

_FROM_OUTSIDE = ("EDGEPROXY_ENGINE",)
"""Variables that are passed on to the proxy from the environment of the demo."""


class Environment:
    """The processes and files of one demo.

    Attributes:
        directory: Holds all files; exists once the environment is open.
        backends: The process of each backend by its id.
    """

    def __init__(self, signals: StopSignals, *, is_kept: bool = False) -> None:
        """With `is_kept`, the proxy has all that people may try: API, metrics, control socket."""
        self._signals = signals
        self._is_kept = is_kept
        self.directory = Path()
        self.backends: dict[str, subprocess.Popen[str]] = {}
        self._proxy: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Make the directory and start nothing. Raises EdgeProxyError if that fails."""
        try:
            with self._signals.held_off():
                self.directory = Path(tempfile.mkdtemp(prefix="edgeproxy-"))
        except OSError as error:
            raise EdgeProxyError(
                f"cannot create a temporary directory: {reason_of(error)}; set TMPDIR to a "
                "writable directory"
            ) from None

    @property
    def database(self) -> Path:
        """The routing database."""
        return self.directory / "routing.db"

    @property
    def overrides(self) -> Path:
        """The geo override file."""
        return self.directory / "countries.csv"

    @property
    def log(self) -> Path:
        """The file that takes the stderr of the proxy."""
        return self.directory / "proxy.log"

    @property
    def variables(self) -> dict[str, str]:
        """The EDGEPROXY_* variables of the proxy."""
        ours = {
            "EDGEPROXY_LISTEN_ADDR": f"{LOOPBACK}:0",
            "EDGEPROXY_REGION": POP_REGION,
            "EDGEPROXY_DB_PATH": str(self.database),
            "EDGEPROXY_DB_RELOAD_SECS": str(RELOAD_SECS),
            "EDGEPROXY_GEO_OVERRIDES": str(self.overrides),
            "EDGEPROXY_CONFIG": "",  # not that of a service on this machine
            "EDGEPROXY_CONTROL_SOCKET": "off",
        }
        if self._is_kept:
            ours |= {
                "EDGEPROXY_CONTROL_SOCKET": str(self.directory / "control"),
                "EDGEPROXY_METRICS_ENABLED": "true",
                "EDGEPROXY_METRICS_LISTEN_ADDR": f"{LOOPBACK}:0",
                "EDGEPROXY_API_ENABLED": "true",
                "EDGEPROXY_API_LISTEN_ADDR": f"{LOOPBACK}:0",
            }
        return {name: os.environ[name] for name in _FROM_OUTSIDE if name in os.environ} | ours

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every `edgeproxy` command, without the settings of the caller."""
        ours = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith("EDGEPROXY_") and name != "DEBUG"
        }
        return ours | self.variables

    @property
    def proxy(self) -> subprocess.Popen[bytes]:
        """The process of the proxy, which must have been started."""
        assert self._proxy is not None
        return self._proxy

    def start_backends(self) -> None:
        """Start all backends and write them into the routing database."""
        for node_id in NODES:
            with self._signals.held_off():
                self.backends[node_id] = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-S", str(backend_program.__file__), node_id],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    process_group=0,
                )
        create(self.database)
        nodes = Nodes(self.database)
        for node_id, region in NODES.items():
            port = _port_of(node_id, self.backends[node_id])
            nodes.add(Backend(node_id, "myapp", region, LOOPBACK, port))

    def start_proxy(self, countries: Mapping[str, str]) -> dict[str, str]:
        """Start `edgeproxy serve`; return what its ready line says.

        `countries` are the country codes of clients by the prefix they come from.
        """
        lines = [f"{prefix},{country}\n" for prefix, country in countries.items()]
        self.overrides.write_text("".join(lines), "utf-8")
        with self.log.open("wb") as stderr, self._signals.held_off():
            self._proxy = subprocess.Popen(
                [sys.executable, "-m", "edgeproxy", "serve"],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                process_group=0,
            )
        return self.logged("ready", "edgeproxy serve is ready")

    def logged(self, event: str, claim: str) -> dict[str, str]:
        """Wait until the proxy has logged this event; return the fields of its line."""

        def look() -> str | None:
            ended = self.proxy.poll()  # before reading: an ended proxy writes no more
            for line in self.log_lines():
                if line.startswith(f"{event} "):
                    return line
            if ended is not None:
                raise UnmetError(claim, f"a log line {event!r}", f"the proxy ended with {ended}")
            return None

        words = shlex.split(eventually(claim, look))
        return {key: text for key, _, text in (word.partition("=") for word in words[1:])}

    def log_lines(self) -> list[str]:
        """Return the whole lines that the proxy has logged."""
        if not self.log.exists():
            return []
        text = self.log.read_text("utf-8", "replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def command(self, *words: str) -> str:
        """Run an `edgeproxy` command on the routing database; return what it printed."""
        typed = f"edgeproxy {shlex.join(words)}"
        try:
            with self._signals.held_off():
                done = subprocess.run(  # noqa: S603
                    [sys.executable, "-m", "edgeproxy", *words],
                    env=self.environ,
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

    def close(self) -> None:
        """End every process and remove every file. Call it while no signal is raised."""
        children: list[subprocess.Popen[bytes] | subprocess.Popen[str]]
        children = [*self.backends.values()]
        if self._proxy:
            children.append(self._proxy)
        for child in children:
            child.kill()
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)


def typed_command() -> str:
    """Return how the `edgeproxy` command is typed here."""
    beside = Path(sys.executable).with_name("edgeproxy")
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m edgeproxy"
    if shutil.which(beside.name) == str(beside):
        return beside.name
    return shlex.quote(str(beside))


def _port_of(node_id: str, process: subprocess.Popen[str]) -> int:
    """Wait for the port that a sample backend prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], DEADLINE_SECS)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise UnmetError(f"{node_id} starts", "the port it listens on", "nothing")
    return int(line)
