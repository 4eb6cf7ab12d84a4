"""One point of presence under test: a proxy, its routing database, its nodes, its clients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.conformance.peers import Peer
from tests.store.editing import DOCUMENTED_TABLE, execute
from tests.system import clients
from tests.system.backends import Backend, HungBackend, ManualBackend
from tests.system.proxy import SERVE, RunningProxy

BRAZIL = "127.10.0.1"
ARGENTINA = "127.11.0.1"
UNITED_STATES = "127.20.0.1"
GERMANY = "127.30.0.1"
JAPAN = "127.40.0.1"
NOWHERE = "127.99.0.1"

OVERRIDES = """\
# loopback addresses stand for countries
127.10.0.0/16, BR
127.11.0.0/16, AR
127.20.0.0/16, US
127.30.0.0/16, DE
127.40.0.0/16, JP
"""


class _Node(Protocol):
    id: str
    host: str
    port: int


class _Closable(Protocol):
    def close(self) -> None: ...


_ClosableT = TypeVar("_ClosableT", bound=_Closable)


class Pop:
    """Sets up and takes down; `proxy` is the one that was started last."""

    proxy: RunningProxy

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "routing.db"
        self.overrides = folder / "overrides.csv"
        self.overrides.write_text(OVERRIDES)
        self._opened = ExitStack()
        self._addresses = (
            f"127.50.{number // 250}.{number % 250 + 1}" for number in itertools.count()
        )

    def close(self) -> None:
        """Take everything down, the latest first; a proxy that still runs is checked."""
        self._opened.close()

    # -- nodes ------------------------------------------------------------------------

    def backend(self, backend_id: str, region: str = "sa", **columns: Any) -> Backend:
        """Start a backend and register it."""
        backend = self.keep(Backend(backend_id))
        backend.start()
        self.register(backend, region, **columns)
        return backend

    def dead_backend(self, backend_id: str, region: str = "sa", **columns: Any) -> Backend:
        """Register a backend that refuses every connection until it is started."""
        backend = self.keep(Backend(backend_id))
        self.register(backend, region, **columns)
        return backend

    def resetting_backend(self, backend_id: str, region: str = "sa", **columns: Any) -> Backend:
        """Register a backend that resets every connection as soon as it has it."""
        backend = self.keep(Backend(backend_id, resets=True))
        backend.start()
        self.register(backend, region, **columns)
        return backend

    def hung_backend(self, backend_id: str, region: str = "sa", **columns: Any) -> HungBackend:
        """Register a backend that leaves every dial unanswered."""
        backend = self.keep(HungBackend(backend_id))
        self.register(backend, region, **columns)
        return backend

    def manual_backend(self, backend_id: str, region: str = "sa", **columns: Any) -> ManualBackend:
        """Register a backend whose clients the test accepts and serves by hand."""
        backend = self.keep(ManualBackend(backend_id))
        self.register(backend, region, **columns)
        return backend

    def register(self, node: _Node, region: str = "sa", **columns: Any) -> None:
        """Insert a row for this node, as another program; wait if a proxy is running."""
        sql = row(node, region, **columns)
        if not self.database.exists():
            execute(self.database, DOCUMENTED_TABLE)
        if hasattr(self, "proxy") and self.proxy.is_running():
            self.proxy.edit(sql)
        else:
            execute(self.database, sql)

    # -- the proxy --------------------------------------------------------------------

    def serve(self, **variables: str) -> RunningProxy:
        """Start a proxy on the routing database and the override file; return when it is ready."""
        return self.serve_with(SERVE, None, **variables)

    def serve_with(
        self, command: Sequence[str], max_descriptors: int | None = None, **variables: str
    ) -> RunningProxy:
        """Start a proxy as above by another command or with few descriptors."""
        self.proxy = self.begin_to_serve(command, max_descriptors, **variables)
        self.proxy.wait_until_ready()
        return self.proxy

    def begin_to_serve(
        self,
        command: Sequence[str] = SERVE,
        max_descriptors: int | None = None,
        **variables: str,
    ) -> RunningProxy:
        """Start a proxy as above and return at once."""
        settings = {"EDGEPROXY_GEO_OVERRIDES": str(self.overrides), **variables}
        return self._opened.enter_context(
            RunningProxy(self.folder, settings, command=command, max_descriptors=max_descriptors)
        )

    # -- clients ----------------------------------------------------------------------

    def new_address(self) -> str:
        """Return an address that no client has had, of no known country."""
        return next(self._addresses)

    def client(self, source: str = "") -> Peer:
        """Return a new client, from an address of its own unless `source` is given."""
        return self.keep(clients.connect(self.proxy.address, source or self.new_address()))

    def holder(self, source: str = "") -> tuple[Peer, str]:
        """Return a client that stays, and the id of the backend that it holds."""
        client = self.client(source)
        return client, clients.greeting(client)

    def reached(self, source: str = "") -> str:
        """Return the id of the backend that a client reaches ("" for none); it leaves."""
        return clients.reached(self.proxy.address, source or self.new_address())

    def keep(self, opened: _ClosableT) -> _ClosableT:
        """Close this at the end."""
        self._opened.callback(opened.close)
        return opened


def row(
    node: _Node,
    region: str = "sa",
    *,
    app: str = "myapp",
    healthy: int = 1,
    weight: int = 1,
    soft_limit: int = 100,
    hard_limit: int = 200,
) -> str:
    """Return the SQL that inserts this node, by position, as the documents do."""
    return (
        f"INSERT INTO backends VALUES ('{node.id}', '{app}', '{region}', '{node.host}', "
        f"{node.port}, {healthy}, {weight}, {soft_limit}, {hard_limit}, 0);"
    )
