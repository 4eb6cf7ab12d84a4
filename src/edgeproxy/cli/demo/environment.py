"""Everything a demo runs on: a temporary directory, nine backends and real proxies.

Each proxy and each backend is a separate process. Closing the environment ends them all and
removes the directory, whatever happened before. Each child has its own process group: Ctrl+C
reaches only the demo, which then ends the children in order.
"""

from __future__ import annotations

import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeproxy.cli.demo import backend as backend_program
from edgeproxy.cli.demo.expected import DEADLINE_SECS, UnmetError
from edgeproxy.cli.demo.proxy import Proxy
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


class Stage:
    """What every demo runs on.

    Attributes:
        directory: Holds all files; exists once the stage is open.
        backends: The process of each backend by its id.
        proxies: The proxies that were started.
    """

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self.directory = Path()
        self.backends: dict[str, subprocess.Popen[str]] = {}
        self.proxies: list[Proxy] = []

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
    def overrides(self) -> Path:
        """The geo override file."""
        return self.directory / "countries.csv"

    def locate(self, countries: Mapping[str, str]) -> None:
        """Write the geo override file: the country codes of clients by their prefix."""
        lines = [f"{prefix},{country}\n" for prefix, country in countries.items()]
        self.overrides.write_text("".join(lines), "utf-8")

    def start_backends(self) -> list[Backend]:
        """Start all backends; return the rows that lead to them."""
        for node_id in NODES:
            with self._signals.held_off():
                self.backends[node_id] = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-I", "-S", str(backend_program.__file__), node_id],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    process_group=0,
                )
        return [
            Backend(node_id, "myapp", NODES[node_id], LOOPBACK, _port_of(node_id, process))
            for node_id, process in self.backends.items()
        ]

    def start_proxy(self, name: str, log: Path, variables: Mapping[str, str]) -> Proxy:
        """Start `edgeproxy serve` with these variables; wait for nothing."""
        with self._signals.held_off():
            self.proxies.append(Proxy(name, log, variables, self._signals))
        return self.proxies[-1]

    def close(self) -> None:
        """End every process and remove every file. Call it while no signal is raised."""
        for process in self.backends.values():
            process.kill()
        for proxy in self.proxies:
            proxy.kill()
        for process in self.backends.values():
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        for proxy in self.proxies:
            proxy.wait()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)


class Environment(Stage):
    """The processes and files of one demo with one proxy."""

    def __init__(self, signals: StopSignals, *, is_kept: bool = False) -> None:
        """With `is_kept`, the proxy has all that people may try: API, metrics, control socket."""
        super().__init__(signals)
        self._is_kept = is_kept

    @property
    def database(self) -> Path:
        """The routing database."""
        return self.directory / "routing.db"

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
        return ours

    @property
    def proxy(self) -> Proxy:
        """The proxy, which must have been started."""
        (proxy,) = self.proxies
        return proxy

    def open_database(self) -> None:
        """Start all backends and write them into the routing database."""
        backends = self.start_backends()
        create(self.database)
        nodes = Nodes(self.database)
        for backend in backends:
            nodes.add(backend)

    def start(self) -> dict[str, str]:
        """Start `edgeproxy serve`; return what its ready line says."""
        proxy = self.start_proxy("the proxy", self.directory / "proxy.log", self.variables)
        return proxy.ready()


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
