"""Whole POPs that share a routing table: real proxies and agents on the hosts of an underlay.

Each POP has a folder with a routing database, a region and a host of the underlay. Its proxy
accepts clients on that host, at port 8080, and starts its agent by itself.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from edgeproxy.cluster.agent_socket import AgentError, ask
from edgeproxy.cluster.builtin.keys import new_key
from tests.store.editing import DOCUMENTED_TABLE, execute
from tests.system.backends import Backend
from tests.system.namespaces import Host
from tests.system.proxy import EDGEPROXY, SERVE, RunningProxy, run_edgeproxy
from tests.underlay import Underlay
from tests.waiting import wait_until

CLIENT_PORT, API_PORT, GOSSIP_PORT = 8080, 8081, 4001
REGIONS = ("sa", "us", "eu", "ap")
PATIENCE_SECS = 30.0
QUICK = {
    "EDGEPROXY_REPLICATION_GOSSIP_INTERVAL_MS": "200",
    "EDGEPROXY_REPLICATION_SYNC_INTERVAL_MS": "1000",
    "EDGEPROXY_HEARTBEAT_TTL_SECS": "2",
}
"""Settings with which tests need not wait for long."""

COLUMNS = [
    "id",
    "app",
    "region",
    "wg_ip",
    "port",
    "healthy",
    "weight",
    "soft_limit",
    "hard_limit",
    "deleted",
]

Row = tuple[Any, ...]


class TimedProxy(RunningProxy):
    """A proxy whose lines are stamped, under `at`, when they come (monotonic seconds)."""

    def _take(self, line: str) -> None:
        count = len(self.events)
        at = time.monotonic()
        super()._take(line)
        if len(self.events) > count:
            self.events[-1]["at"] = at


class ClusterPop:
    """One POP. `proxy` is the one that was started last.

    Attributes:
        variables: The settings of its proxy; changes count from the next start on.
    """

    proxy: TimedProxy

    def __init__(self, name: str, host: Host, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self.host = host
        self.folder = folder
        self.database = folder / "routing.db"
        self.state = folder / "state.db"
        self.variables = dict(variables)
        folder.mkdir()

    # -- its processes ------------------------------------------------------------------

    def start(self) -> Self:
        """Start the proxy; return once it accepts clients."""
        self.begin()
        self.proxy.wait_until_ready()
        return self

    def begin(self) -> None:
        """Start the proxy; return at once."""
        self.create()
        self.proxy = TimedProxy(self.folder, self.variables, command=self.host.command(SERVE))
        self.pid = self.proxy.pid

    def upgrade(self) -> None:
        """Let a successor of the proxy take over; return once it has and the old one has ended."""
        self.pid = self.ask_proxy("/upgrade", "POST")["pid"]
        wait_until(lambda: not self.proxy.is_running(), "the end of the old one")

    @property
    def agent_pid(self) -> int:
        """The agent that was started last."""
        self.proxy.wait_for("agent_started")
        return self._agents()[-1]

    def _agents(self) -> list[int]:
        return [int(line["pid"]) for line in self.proxy.seen("agent_started")]

    def crash(self) -> None:
        """End the proxy and the agent with SIGKILL, so that neither says a word."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in (self.pid, self.agent_pid):
                _signal(pid, number)
        self.proxy.kill()

    def stop(self) -> None:
        """Stop the proxy in order, and wait until the agent has ended too."""
        agent_pid = self.agent_pid
        _signal(self.pid, signal.SIGTERM)
        assert self.proxy.wait_for_exit() == 0, self.proxy.told()
        wait_until(lambda: not Path(f"/proc/{agent_pid}").exists(), "the end of the agent")

    def pause(self) -> None:
        """Let no process of this POP run."""
        for pid in (self.pid, self.agent_pid):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them run on."""
        for pid in (self.pid, self.agent_pid):
            _signal(pid, signal.SIGCONT)

    def kill_agent(self) -> None:
        """End the agent with SIGKILL; the proxy starts another one."""
        _signal(self.agent_pid, signal.SIGKILL)

    def close(self) -> None:
        """End what runs."""
        if hasattr(self, "proxy"):
            self.crash() if self._agents() else self.proxy.kill()

    # -- its table ------------------------------------------------------------------------

    def create(self) -> None:
        """Make an empty table, unless there is one."""
        if not self.database.exists():
            execute(self.database, DOCUMENTED_TABLE)

    def edit(self, sql: str) -> None:
        """Change the routing database as another program does."""
        execute(self.database, sql)

    def add(self, *ids: str, weight: int = 1, wg_ip: str = "127.0.0.1", port: int = 9) -> None:
        """Insert rows, in one transaction."""
        values = ", ".join(
            f"('{each}', 'myapp', 'sa', '{wg_ip}', {port}, 1, {weight}, 100, 200, 0)"
            for each in ids
        )
        self.edit(f"INSERT INTO backends ({', '.join(COLUMNS)}) VALUES {values};")

    def set_weight(self, backend_id: str, weight: int) -> None:
        """Change one value."""
        self.edit(f"UPDATE backends SET weight = {weight} WHERE id = '{backend_id}';")

    def rows(self) -> dict[str, Row]:
        """Return the documented columns of the routing database, by id."""
        uri = f"file:{self.database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM backends").fetchall()
        return {row[0]: row for row in found}

    def weights(self) -> dict[str, int]:
        """Return the weights that are in force, by id."""
        return {each["id"]: each["weight"] for each in self.ask_proxy("/status")["backends"]}

    def ask_proxy(self, path: str, method: str = "GET") -> Any:
        """Return what the proxy answers on its control socket."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_SECS)
        connection.sock = socket.socket(socket.AF_UNIX)
        with closing(connection):
            connection.sock.settimeout(PATIENCE_SECS)
            connection.sock.connect(str(self.folder / "control"))
            connection.request(method, path)
            return json.loads(connection.getresponse().read())

    def wait_for(self, **wanted: int | None) -> None:
        """Wait until these weights are in force, by id; None for a backend that is not there."""

        def are_there() -> bool:
            weights = self.weights()
            return all(weights.get(each) == weight for each, weight in wanted.items())

        try:
            wait_until(are_there, f"{wanted} in force", PATIENCE_SECS)
        except AssertionError as error:
            raise AssertionError(
                f"{self.name}: {error}: {self.weights()}\n{self.proxy.told()}"
            ) from None

    # -- its cluster --------------------------------------------------------------------

    def run(self, *words: str) -> Any:
        """Run a command of edgeProxy with the settings of this POP."""
        return run_edgeproxy(
            *words, folder=self.folder, command=self.host.command(EDGEPROXY), **self.variables
        )

    def status(self) -> Mapping[str, Any] | None:
        """Return what the agent says of itself, None if there is none that answers."""
        with suppress(AgentError):
            answer: Mapping[str, Any] = ask(self.state, "status")
            return answer
        return None

    def members(self) -> dict[str, Mapping[str, Any]]:
        """Return the other members that the agent knows, by name."""
        return {each["node_id"]: each for each in (self.status() or {"members": ()})["members"]}

    def connected(self) -> set[str]:
        """Return with whom the agent exchanges changes."""
        return {name for name, each in self.members().items() if each["is_connected"]}

    # -- its clients ----------------------------------------------------------------------

    def connect(self, port: int = CLIENT_PORT) -> socket.socket:
        """Return a connection from the host of this POP to its proxy or its API."""
        address = ("127.0.0.1", port)
        return self.host.run(partial(socket.create_connection, address, PATIENCE_SECS))

    def reached(self) -> str:
        """Return what a backend greets a client with, "" for none; it leaves."""
        with suppress(ConnectionError), self.connect() as client:
            return client.makefile("r").readline().strip()
        return ""

    def ask_api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the content of an answer of the API."""
        connection = http.client.HTTPConnection("127.0.0.1", API_PORT, timeout=PATIENCE_SECS)
        with closing(connection):
            connection.sock = self.connect(API_PORT)
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(
                method, path, json.dumps(body) if body is not None else None, headers
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")


class Cluster:
    """POPs that know each other, in a `with` block; none of them is started by that.

    Attributes:
        underlay: The network between them.
        pops: The POPs, by name.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        is_ipv6: bool = False,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """`more` are settings of all of them."""
        self._is_ipv6 = is_ipv6
        self.underlay = Underlay(names)
        self.pops: dict[str, ClusterPop] = {}
        self.key = new_key().reveal()
        self._folder = folder
        self._names = list(names)
        self._more = dict(more or {})

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.underlay)
            for number, name in enumerate(self._names):
                variables = self.variables(name, REGIONS[number % len(REGIONS)])
                host = self.underlay.hosts[name]
                self.pops[name] = pop = ClusterPop(name, host, self._folder / name, variables)
                stack.callback(pop.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> ClusterPop:
        return self.pops[name]

    def __iter__(self) -> Iterator[ClusterPop]:
        return iter(self.pops.values())

    def address(self, name: str) -> str:
        """Return the address of a POP for others, as settings take it."""
        if self._is_ipv6:
            return f"[{self.underlay.address_6(name)}]"
        return self.underlay.address(name)

    def variables(self, name: str, region: str) -> dict[str, str]:
        """Return the settings of a POP that joins through all others."""
        peers = ",".join(self.address(each) for each in self._names if each != name)
        address = self.address(name)
        return {
            "EDGEPROXY_LISTEN_ADDR": f"0.0.0.0:{CLIENT_PORT}",
            "EDGEPROXY_REGION": region,
            "EDGEPROXY_DB_RELOAD_SECS": "5",
            "EDGEPROXY_CONTROL_SOCKET": "control",
            "EDGEPROXY_API_ENABLED": "true",
            "EDGEPROXY_API_LISTEN_ADDR": f"127.0.0.1:{API_PORT}",
            "EDGEPROXY_REPLICATION_ENABLED": "true",
            "EDGEPROXY_REPLICATION_NODE_ID": name,
            "EDGEPROXY_REPLICATION_GOSSIP_ADDR": f"{address}:{GOSSIP_PORT}",
            "EDGEPROXY_REPLICATION_TRANSPORT_ADDR": f"{address}:{GOSSIP_PORT + 1}",
            "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": peers,
            "EDGEPROXY_REPLICATION_KEYS": self.key,
            **self._more,
        }

    def newcomer(self, name: str, folder: Path, **more: str) -> ClusterPop:
        """Return another POP, on the first host, at ports of its own; who asks closes it."""
        host = self.underlay.hosts[self._names[0]]
        address = self.address(self._names[0])
        apart = {
            "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
            "EDGEPROXY_API_ENABLED": "false",
            "EDGEPROXY_REPLICATION_GOSSIP_ADDR": f"{address}:{GOSSIP_PORT + 1000}",
            "EDGEPROXY_REPLICATION_TRANSPORT_ADDR": f"{address}:{GOSSIP_PORT + 1001}",
            "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": ",".join(map(self.address, self._names)),
        }
        settings = {**self.variables(self._names[0], REGIONS[-1]), **apart}
        settings["EDGEPROXY_REPLICATION_NODE_ID"] = name
        return ClusterPop(name, host, folder, {**settings, **more})

    def start(self, *names: str) -> None:
        """Start these POPs, or all; return when each is connected with each other."""
        started = [self.pops[name] for name in names or self._names]
        for pop in started:
            pop.begin()
        for pop in started:
            pop.proxy.wait_until_ready()
        self.wait_until_connected(*names)

    def wait_until_connected(self, *names: str, secs: float = PATIENCE_SECS) -> None:
        """Wait until each of these POPs exchanges changes with all others of them."""
        wanted = set(names or self._names)

        def are_connected() -> bool:
            return all(wanted - {name} <= self.pops[name].connected() for name in wanted)

        wait_until(are_connected, f"connections between {wanted}", secs)

    def backend_at(self, name: str) -> Backend:
        """Return a backend that runs on the host of a POP; who asks closes it."""

        def started() -> Backend:
            backend = Backend(f"at-{name}", self.underlay.address(name))
            backend.start()
            return backend

        return self.underlay.hosts[name].run(started)

    def spread(self, least_ms: float, most_ms: float) -> None:
        """Give each pair of hosts another delay between these, in one direction."""
        self.underlay.spread(least_ms, most_ms)

    def wait_until_equal(
        self, *names: str | ClusterPop, secs: float = PATIENCE_SECS
    ) -> dict[str, Row]:
        """Wait until the tables of these POPs, or of all, are equal; return the rows."""
        pops = [
            name if isinstance(name, ClusterPop) else self.pops[name]
            for name in names or self._names
        ]

        def are_equal() -> bool:
            table = pops[0].rows()
            return all(pop.rows() == table for pop in pops[1:])

        try:
            wait_until(are_equal, "equal tables", secs)
        except AssertionError as error:
            tables = "\n".join(f"{pop.name}: {_short(pop.rows())}" for pop in pops)
            told = "\n".join(f"-- {pop.name}\n{pop.proxy.told()}" for pop in pops)
            raise AssertionError(f"{error}\n{tables}\n{told}") from None
        return pops[0].rows()


def other_clock(offset_secs: int) -> dict[str, str]:
    """Return settings that set the clock of a POP off, and not its monotonic clock."""
    libraries = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    if not libraries:
        pytest.skip("the package faketime is not installed")
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME": f"{offset_secs:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def processor_secs(pid: int) -> float:
    """Return the processor time of all threads of a process, as the scheduler counts it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _short(rows: Mapping[str, Row]) -> str:
    return f"{len(rows)} rows {list(rows.values())[:20]}"
