"""Everything the demo of several POPs runs on: as `Stage`, with many proxies and a relay."""

from __future__ import annotations

import shlex
import shutil
import sys

from edgeproxy.cli.demo.cluster.pop import Pop
from edgeproxy.cli.demo.cluster.relay import Relay
from edgeproxy.cli.demo.environment import Stage, typed_command
from edgeproxy.cli.demo.proxy import environ_with, output_of
from edgeproxy.cli.demo.signals import StopSignals

REGIONS = ("sa", "us", "eu", "ap", "af", "me", "oc", "in", "ca")

_PYTHON_SQL = (
    "python3",
    "-c",
    "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])",
)
"""Stands in for `sqlite3` where that is not installed."""


class ClusterEnvironment(Stage):
    """The processes and files of one demo of several POPs.

    Attributes:
        pops: The POPs.
        relay: The network between them.
    """

    def __init__(self, signals: StopSignals) -> None:
        super().__init__(signals)
        self.pops: list[Pop] = []
        self.relay = Relay()

    def make_pops(self, count: int) -> None:
        """Give each POP a directory, an address and ports, and open the network between them."""
        for host, region in zip(hosts(count), REGIONS, strict=False):
            name = f"pop-{len(self.pops) + 1}"
            home = self.directory / name
            home.mkdir()
            ports = self.relay.open(name, host), self.relay.open(name, host)
            self.pops.append(Pop(name, region, home, host, *ports))
        self.relay.start()

    def make_key(self) -> str:
        """Make the key of the cluster; return the command as it is typed."""
        typed = f"{typed_command()} cluster keygen"
        command = [sys.executable, "-m", "edgeproxy", "cluster", "keygen"]
        key = output_of(command, typed, self._signals, environ=environ_with({}))
        path = self.directory / "key"
        path.touch(mode=0o600)
        path.write_text(f"{key}\n", "utf-8")
        return f"{typed} > key"

    def variables_of(self, pop: Pop) -> dict[str, str]:
        """Return the EDGEPROXY_* variables of a POP."""
        return pop.variables | {
            "EDGEPROXY_GEO_OVERRIDES": str(self.overrides),
            "EDGEPROXY_REPLICATION_KEY_FILE": str(self.directory / "key"),
            "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": ",".join(each.gossip for each in self.pops),
        }

    def start_pops(self) -> None:
        """Start all proxies, which start their agents; wait until they serve."""
        for pop in self.pops:
            variables = self.variables_of(pop)
            pop.proxy = self.start_proxy(pop.name, pop.home / "proxy.log", variables)
        for pop in self.pops:
            assert pop.proxy is not None
            host, _, port = pop.proxy.ready()["listen"].rpartition(":")
            pop.listen = (host, int(port))

    def edit(self, pop: Pop, sql: str) -> None:
        """Run SQL on the routing database of a POP, as `typed_edit` says."""
        words = [*_sql_program(), f"{pop.name}/{pop.database.name}", sql]
        words[0] = shutil.which(words[0]) or sys.executable
        typed = typed_edit(pop, sql)
        output_of(words, typed, self._signals, environ=environ_with({}), directory=self.directory)

    def members(self, pop: Pop) -> tuple[str, str]:
        """Ask for the members as a POP sees them; return the command as typed, and its output."""
        name = "EDGEPROXY_REPLICATION_DB_PATH"
        typed = f"{name}={pop.name}/state.db {typed_command()} cluster members"
        command = [sys.executable, "-m", "edgeproxy", "cluster", "members"]
        environ = environ_with({name: f"{pop.name}/state.db"})
        return typed, output_of(
            command, typed, self._signals, environ=environ, directory=self.directory
        )

    def close(self) -> None:
        """End every process and thread and remove every file. Call it while no signal is raised."""
        super().close()
        self.relay.close()


def hosts(count: int) -> list[str]:
    """Return the addresses of so many POPs."""
    return [f"127.0.{number}.1" for number in range(1, count + 1)]


def typed_edit(pop: Pop, sql: str) -> str:
    """Return the command that runs SQL on the routing database of a POP, as it is typed."""
    program = shlex.join(_sql_program())
    return f'{program} {pop.name}/{pop.database.name} \\\n      "{sql}"'


def _sql_program() -> tuple[str, ...]:
    if shutil.which("sqlite3"):
        return "sqlite3", "-cmd", ".timeout 5000"  # by itself it does not wait for other writers
    return _PYTHON_SQL
