"""One POP of the demo: where it is, how its proxy is started, and what is asked of it."""

from __future__ import annotations

import argparse
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgeproxy.cli.demo.cluster.table import InForce, Rows, in_force_with, rows_of
from edgeproxy.cli.demo.environment import LOOPBACK, RELOAD_SECS
from edgeproxy.cli.demo.expected import UnmetError
from edgeproxy.cli.demo.proxy import Proxy
from edgeproxy.cli.running.ask import ask as ask_proxy
from edgeproxy.cluster.agent_socket import AgentError
from edgeproxy.cluster.agent_socket import ask as ask_agent
from edgeproxy.errors import EdgeProxyError

GOSSIP_INTERVAL_MS = 200
SYNC_INTERVAL_MS = 1000


@dataclass(eq=False)
class Pop:
    """One POP.

    Attributes:
        name: Such as `pop-1`; also the name of its directory.
        region: Where it says it is.
        home: The directory of its files.
        host: Its address, at which the relay listens.
        gossip_port: Where the others watch it.
        transport_port: Where they exchange changes with it.
        proxy: Its proxy, once that was started.
        listen: Where clients reach it, once it is ready.
    """

    name: str
    region: str
    home: Path
    host: str
    gossip_port: int
    transport_port: int
    proxy: Proxy | None = None
    listen: tuple[str, int] = (LOOPBACK, 0)

    @property
    def database(self) -> Path:
        """The routing database."""
        return self.home / "routing.db"

    @property
    def gossip(self) -> str:
        """Where others join through it."""
        return f"{self.host}:{self.gossip_port}"

    @property
    def variables(self) -> dict[str, str]:
        """The EDGEPROXY_* variables, without those that are the same at all POPs."""
        return {
            "EDGEPROXY_LISTEN_ADDR": f"{LOOPBACK}:0",
            "EDGEPROXY_REGION": self.region,
            "EDGEPROXY_DB_PATH": str(self.database),
            "EDGEPROXY_DB_RELOAD_SECS": str(RELOAD_SECS),
            "EDGEPROXY_CONFIG": "",  # not that of a service on this machine
            "EDGEPROXY_CONTROL_SOCKET": str(self.home / "control"),
            "EDGEPROXY_REPLICATION_ENABLED": "true",
            "EDGEPROXY_REPLICATION_NODE_ID": self.name,
            "EDGEPROXY_REPLICATION_DB_PATH": str(self.home / "state.db"),
            "EDGEPROXY_REPLICATION_GOSSIP_ADDR": f"{LOOPBACK}:{self.gossip_port}",
            "EDGEPROXY_REPLICATION_TRANSPORT_ADDR": f"{LOOPBACK}:{self.transport_port}",
            "EDGEPROXY_REPLICATION_ADVERTISE_ADDR": self.host,
            "EDGEPROXY_REPLICATION_GOSSIP_INTERVAL_MS": str(GOSSIP_INTERVAL_MS),
            "EDGEPROXY_REPLICATION_SYNC_INTERVAL_MS": str(SYNC_INTERVAL_MS),
        }

    def logged_at(self, event: str) -> float:
        """Return when its proxy or agent has logged this event last, in Unix seconds; or 0."""
        assert self.proxy is not None
        events = self.proxy.events(event)
        return datetime.fromisoformat(events[-1]["time"]).timestamp() if events else 0.0

    def agent(self) -> Any:
        """Return the status of its agent; None while there is none that answers."""
        self._expect_running()
        try:
            return ask_agent(self.home / "state.db", "status")
        except AgentError:
            return None

    def states(self) -> dict[str, str]:
        """Return the state of each other POP as it is seen here: `alive`, `suspect`, `dead`."""
        agent = self.agent() or {"members": ()}
        return {each["node_id"]: str(each["state"]) for each in agent["members"]}

    def connected(self) -> set[str]:
        """Return the other POPs that its agent has a session with."""
        agent = self.agent() or {"members": ()}
        return {each["node_id"] for each in agent["members"] if each["is_connected"]}

    def rows(self) -> Rows:
        """Return the rows of its routing database."""
        return rows_of(self.database)

    def has(self, rows: Rows) -> bool:
        """Return whether its file has just these rows, and its proxy routes by them."""
        try:
            if self.rows() != rows:
                return False
        except sqlite3.Error:  # it is being written
            return False
        return self._in_force() == in_force_with(rows)

    def _in_force(self) -> set[InForce]:
        self._expect_running()
        try:
            status = ask_proxy(argparse.Namespace(socket=str(self.home / "control")), "/status")
        except EdgeProxyError as error:
            raise UnmetError(f"{self.name} answers on its control socket", "yes", error) from None
        return {
            InForce(each["id"], each["state"] != "unhealthy", each["weight"], each["soft_limit"])
            for each in status["backends"]
        }

    def _expect_running(self) -> None:
        code = None if self.proxy is None else self.proxy.process.poll()
        if code is not None:
            raise UnmetError(f"{self.name} runs", "no end", f"exit code {code}")
